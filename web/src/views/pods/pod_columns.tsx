// The columns of the list of pods, and what stands in their cells.
import { now, useReading } from "../../data/readings";
import { number, record } from "../../data/shapes";
import { ago, clock, count, fullTime, percent, price, sentence, span, UNKNOWN, UNREADABLE, usd } from "../../format";
import { openPod } from "../../navigation";
import { Badge, Meter, type Tone } from "../../ui/parts";
import type { Column } from "../../ui/table";
import { PodActions } from "./pod_actions";
import {
  type BackedUp,
  DETAIL_SECONDS,
  gpusOf,
  isUndated,
  lastBackupWords,
  meanUse,
  type Phase,
  type Pod,
  podSpec,
  WATCHED_SECONDS,
} from "./pod_readings";

const SOON_SECONDS = 3600;

export function columnsOf(
  backedUp: (pod: string) => BackedUp,
  areAllKnown: boolean,
  watched: ReadonlySet<string>,
): readonly Column<Pod>[] {
  return [
    {
      id: "pod",
      title: "Pod",
      card: "heading",
      by: (pod) => pod.name,
      cell: (pod) => (
        <div class="two">
          <bdi class="clip strong" title={pod.name}>
            {pod.name ?? pod.key}
          </bdi>
          <span class="clip quiet small" title={[pod.clusterId, pod.template].filter(Boolean).join(", ")}>
            {pod.mark !== undefined && <bdi class="mark">{pod.mark}</bdi>}
            {pod.isKeyUnlike && pod.keyName !== undefined && (
              <bdi class="mark warn-text" title="The API key that rented it, and not this server">
                key {pod.keyName}
              </bdi>
            )}
            <bdi>{pod.template ?? "\u00a0"}</bdi>
          </span>
        </div>
      ),
    },
    { id: "state", title: "State", card: "bare", by: (pod) => pod.status, cell: (pod) => <StateBadge pod={pod} /> },
    {
      id: "gpu",
      title: "GPU",
      by: (pod) => pod.gpuType,
      cell: (pod) => (
        <span class="foreign short">
          {pod.gpuCount !== undefined && <span class="quiet">{count(pod.gpuCount)}× </span>}
          {pod.gpuType ?? UNKNOWN}
        </span>
      ),
    },
    { id: "use", title: "GPU use", from: "wide", cell: (pod) => <GpuUse pod={pod} watched={watched.has(pod.id)} /> },
    {
      id: "price",
      title: "Per hour",
      end: true,
      by: (pod) => pod.pricePerHourUsd,
      cell: (pod) => price(pod.pricePerHourUsd),
    },
    {
      id: "cost",
      from: "wide",
      title: "So far",
      end: true,
      help: "What the pod has cost, estimated from its age and price",
      by: (pod) => pod.costUsd,
      cell: (pod) => <Cost pod={pod} />,
    },
    { id: "removal", title: "Removal", by: (pod) => pod.removalAt ?? undefined, cell: (pod) => <Removal pod={pod} /> },
    {
      id: "backup",
      from: "wide",
      title: "Last backup",
      by: (pod) => backedUp(pod.id).done?.at ?? undefined,
      cell: (pod) => <LastBackup of={backedUp(pod.id)} known={areAllKnown} />,
    },
    {
      id: "actions",
      title: "Actions",
      silent: true,
      from: "wide",
      end: true,
      cell: (pod) =>
        openPod.value === pod.key ? null : (
          <PodActions pod={pod} lastBackup={() => lastBackupWords(backedUp(pod.id), areAllKnown, now.value)} compact />
        ),
    },
  ];
}

const STATE: Readonly<Record<Phase, readonly [Tone, string | undefined]>> = {
  running: ["good", "Running"],
  starting: ["accent", undefined],
  ending: ["plain", undefined],
  failed: ["bad", undefined],
  other: ["plain", undefined],
};

export function StateBadge({ pod }: { pod: Pod }) {
  const [tone, word] = STATE[pod.phase];
  return (
    <span class="state" title={pod.problem ?? pod.maintenance}>
      <Badge tone={tone}>
        <span class="dot" />
        <bdi>{word ?? sentence(pod.status) ?? "Unknown"}</bdi>
      </Badge>
      {pod.billing === false && <span class="quiet small"> not billed</span>}
      {pod.billing === undefined && pod.phase !== "running" && <span class="quiet small"> may bill</span>}
    </span>
  );
}

/** What becomes of a pod that has no removal time; what is not billed is not said to bill. */
function untilRemoved({ billing, phase }: Pod): string {
  if (billing === false) return phase === "starting" ? "will bill until removed" : "stays until removed";
  return billing === undefined ? "may bill until removed" : "bills until removed";
}

function Removal({ pod }: { pod: Pod }) {
  if (pod.phase === "ending") return <span class="quiet">Under way</span>;
  const idle =
    pod.idleMinutes === undefined
      ? undefined
      : pod.idleMinutes === null
        ? "idle for some time"
        : `idle ${pod.idleMinutes} min`;
  if (isUndated(pod))
    return (
      <div class="two">
        <span class="warn-text">Time {UNREADABLE}</span>
        <span class="quiet small">{idle === undefined ? "it may have one" : `or once ${idle}`}</span>
      </div>
    );
  if (typeof pod.removalAt !== "number" && typeof pod.removalHoursAfterStart === "number")
    return (
      <div class="two">
        <span>{span(pod.removalHoursAfterStart * 3600)}</span>
        <span class="quiet small">after it has started</span>
      </div>
    );
  if (typeof pod.removalAt !== "number")
    return (
      <div class="two">
        <span class={idle === undefined && pod.billing !== false ? "warn-text" : ""}>
          {idle === undefined ? "No time set" : `Once ${idle}`}
        </span>
        <span class="quiet small">{idle === undefined ? untilRemoved(pod) : "\u00a0"}</span>
      </div>
    );
  const left = (pod.removalAt - now.value) / 1000;
  return (
    <div class="two" title={fullTime(pod.removalAt)}>
      <span class={`number${left < SOON_SECONDS ? " warn-text" : ""}`}>
        {left <= 0 ? "Due now" : `in ${span(left)}`}
      </span>
      <span class="quiet small">
        {clock(pod.removalAt, now.value)}
        {idle !== undefined && ` or ${idle}`}
      </span>
    </div>
  );
}

function Cost({ pod }: { pod: Pod }) {
  // Its details know it better, and stand right below while they are open.
  const { data } = useReading(openPod.value === pod.key && pod.id !== "" ? podSpec(pod.id, DETAIL_SECONDS) : undefined);
  return usd(number(record(data?.pod).cost_so_far_usd) ?? pod.costUsd);
}

function LastBackup({ of: { done, running, failed }, known }: { of: BackedUp; known: boolean }) {
  const last =
    done === undefined ? (
      <span class="quiet">{known ? "None" : UNKNOWN}</span>
    ) : (
      <span title={fullTime(done.at)}>{ago(done.at, now.value)}</span>
    );
  if (running !== undefined)
    return (
      <div class="two">
        {last}
        <span class="use small">
          <Meter
            share={running.progressPercent === undefined ? undefined : running.progressPercent / 100}
            label="A backup is under way"
          />
          <span>{running.progressPercent === undefined ? "now" : percent(running.progressPercent)}</span>
        </span>
      </div>
    );
  if (failed === undefined) return last;
  return (
    <div class="two" title={failed.problem}>
      {last}
      <span class="small warn-text">failed {ago(failed.at, now.value)}</span>
    </div>
  );
}

function GpuUse({ pod, watched }: { pod: Pod; watched: boolean }) {
  const state = useReading(watched ? podSpec(pod.id, WATCHED_SECONDS) : undefined);
  const use = meanUse(gpusOf(record(state.data?.pod)));
  return (
    <span class="use">
      <Meter
        share={use === undefined ? undefined : use / 100}
        label={use === undefined ? "It is not known how busy the GPUs are" : `GPUs ${use.toFixed(0)} percent busy`}
      />
      <span>{percent(use)}</span>
    </span>
  );
}
