// The Pods view: what runs, what it burns, when it ends, and what it does.
import { useEffect, useMemo, useState } from "preact/hooks";
import { forPeople } from "../../data/people";
import { now, refresh, type State, useReading } from "../../data/readings";
import { isNoList, type Json, number, record, records, text, unreadRows } from "../../data/shapes";
import {
  ago,
  clock,
  count,
  fullTime,
  hours,
  percent,
  plural,
  price,
  sentence,
  span,
  UNKNOWN,
  UNREADABLE,
  usd,
} from "../../format";
import { openPod, show } from "../../navigation";
import {
  Badge,
  Button,
  Empty,
  Figure,
  Figures,
  lacksKey,
  Meter,
  NoKey,
  Panel,
  Read,
  type Tone,
  Unread,
} from "../../ui/parts";
import { type Column, Table } from "../../ui/table";
import { Burning } from "../burning";
import { forecast, lastsInWords } from "../money/forecast";
import { Orders } from "./orders";
import { PodActions } from "./pod_actions";
import { PodDetail } from "./pod_detail";
import {
  areAllBackups,
  BACKUPS,
  BALANCE,
  type Backup,
  backupsOf,
  gpusOf,
  isEndless,
  isUncosted,
  isUndated,
  lastBackupWords,
  meanUse,
  newestBackups,
  ordersOf,
  type Phase,
  PODS,
  type Pod,
  podSpec,
  podsOf,
  runningBackups,
  untoldPods,
} from "./pod_readings";

/** Of so many pods the list reads what their GPUs do; of the others their details tell. */
const MOST_WATCHED = 6;
const WATCHED_SECONDS = 120;
const SOON_SECONDS = 3600;
/** How often backups are read, and how often while one is under way. */
const BACKUPS_SECONDS = 120;
const HURRY_SECONDS = 20;

export function PodsView() {
  const list = useReading(PODS);
  const balance = useReading(lacksKey(list) ? undefined : BALANCE);
  const alone = list.data === undefined ? openPod.value : undefined;
  if (lacksKey(list)) return <NoKey failure={list.failure} />;
  return (
    <div class="view">
      <Summary listed={list} balanced={balance} />
      {alone !== undefined && <Alone id={alone} />}
      <Read state={list} label="pods" panel rows={5} again={() => void refresh("list_pods")}>
        {(data) => <Pods data={data} />}
      </Read>
    </div>
  );
}

/** The pod that a model had read, while there is no list for it to stand in. */
function Alone({ id }: { id: string }) {
  const { data } = useReading(podSpec(id, WATCHED_SECONDS));
  const backups = useReading({ ...BACKUPS, everySeconds: BACKUPS_SECONDS });
  if (data === undefined) return null;
  const [pod] = podsOf({ pods: [record(data.pod)] });
  return pod === undefined ? null : (
    <Panel title={pod.name ?? id} note={sentence(pod.status)}>
      <PodDetail pod={pod} backups={backups} />
    </Panel>
  );
}

function Summary({ listed, balanced }: { listed: State; balanced: State }) {
  const [list, balance] = [listed.data, balanced.data];
  const pods = podsOf(list);
  const running = pods.filter((pod) => pod.phase === "running").length;
  const known = pods.flatMap((pod) => pod.costUsd ?? []);
  const cost = known.length === 0 ? undefined : known.reduce((sum, each) => sum + each, 0);
  const endless = pods.filter((pod) => pod.phase === "running" && isEndless(pod)).length;
  const undated = pods.filter(isUndated).length;
  const next = pods
    .filter((pod) => typeof pod.removalAt === "number")
    .reduce<Pod | undefined>(
      (first, pod) => ((first?.removalAt ?? Infinity) <= (pod.removalAt ?? 0) ? first : pod),
      undefined,
    );
  const untold = untoldPods(list);
  const uncosted = untold + pods.filter(isUncosted).length;
  const left = number(balance?.balance_usd);
  const lasts = number(balance?.runway_hours);
  const isUsedUp = left !== undefined && left <= 0;
  // As the view of the money has it; the server counts with no removal.
  const ahead = left === undefined || list === undefined ? undefined : forecast(left, pods, now.value);
  const foreseen = ahead === undefined || ahead.unpriced + untold > 0 ? undefined : lastsInWords(ahead, now.value);
  const ifAllRunOn = pods.every(isEndless) ? "" : " if all run on";
  return (
    <Figures of={[listed, balanced]}>
      <Burning from={[listed, balanced]} />
      <Figure
        label="Running"
        of={[listed]}
        value={list === undefined ? UNKNOWN : count(running)}
        note={
          list === undefined
            ? ""
            : untold > 0
              ? `at least: ${plural(untold, "pod")} not read`
              : pods.length === 0
                ? ""
                : running === pods.length
                  ? "all of them"
                  : `of ${plural(pods.length, "pod")}`
        }
      />
      <Figure
        label="Cost so far"
        of={[listed]}
        value={list !== undefined && pods.length + untold === 0 ? usd(0) : usd(cost)}
        note={cost === undefined ? "" : uncosted > 0 ? `at least: ${plural(uncosted, "pod")} not counted` : "estimated"}
      />
      <Figure
        label="Next removal"
        of={[listed]}
        value={typeof next?.removalAt === "number" ? span((next.removalAt - now.value) / 1000) : UNKNOWN}
        note={
          undated > 0 ? (
            `${next === undefined ? "" : "or sooner: "}${plural(undated, "time")} cannot be read`
          ) : next !== undefined ? (
            <bdi class="clip">{next.name ?? next.id}</bdi>
          ) : untold > 0 ? (
            "not all were read"
          ) : endless > 0 ? (
            "none has a time"
          ) : (
            ""
          )
        }
      />
      <Figure
        label="Balance"
        value={usd(left)}
        tone={isUsedUp || (lasts !== undefined && lasts < 6) ? "warn" : "plain"}
        note={
          isUsedUp ? "nothing is left" : (foreseen ?? (lasts === undefined ? "" : `lasts ${hours(lasts)}${ifAllRunOn}`))
        }
        of={[balanced]}
      />
    </Figures>
  );
}

function Pods({ data }: { data: Json }) {
  const pods = useMemo(() => podsOf(data), [data]);
  const orders = useMemo(() => ordersOf(data), [data]);
  const [hurry, setHurry] = useState(false);
  const backups = useReading(
    pods.length === 0 ? undefined : { ...BACKUPS, everySeconds: hurry ? HURRY_SECONDS : BACKUPS_SECONDS },
  );
  const newest = useMemo(() => newestBackups(backupsOf(backups.data)), [backups.data]);
  const running = useMemo(() => runningBackups(backupsOf(backups.data)), [backups.data]);
  useEffect(() => setHurry(running.size > 0), [running]);
  // A pod that is in no backup of a part of the list may have one all the same.
  const allBackups = areAllBackups(backups.data);
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = useMemo(
    () =>
      wanted === ""
        ? pods
        : pods.filter((pod) =>
            [pod.name, pod.gpuType, pod.template, pod.status, pod.id].some((word) =>
              word?.toLowerCase().includes(wanted),
            ),
          ),
    [pods, wanted],
  );
  const watched = useMemo(
    () =>
      new Set(
        pods
          .filter((pod) => pod.phase === "running")
          .slice(0, MOST_WATCHED)
          .map((pod) => pod.id),
      ),
    [pods],
  );
  const columns = useMemo(
    () => columnsOf(newest, running, allBackups, watched),
    [newest, running, allBackups, watched],
  );
  const unsettled = records(data.unsettled);
  const unread = unreadRows(data.pods);
  return (
    <>
      {(isNoList(data.unsettled) || unreadRows(data.unsettled) > 0) && (
        <p class="banner warn">Whether some rents are not settled could not be read.</p>
      )}
      {unsettled.map((rent, i) => (
        <div key={i} class="banner warn" role="status">
          <strong>
            <bdi>{text(rent.name) ?? "A rent"}</bdi> is not settled.
          </strong>{" "}
          <span class="foreign">{forPeople(text(rent.next) ?? "")}</span>
        </div>
      ))}
      <Panel
        title="Pods"
        flush
        side={
          pods.length > 6 && (
            <input
              type="search"
              class="search"
              placeholder="Find a pod"
              aria-label="Find a pod"
              value={search}
              onInput={(event) => setSearch(event.currentTarget.value)}
            />
          )
        }
      >
        <Unread rows={unread} flush />
        {pods.length === 0 && untoldPods(data) > 0 ? (
          <Empty title="No pod could be read" icon="warning">
            What runs and bills is not known.
          </Empty>
        ) : pods.length === 0 ? (
          <Empty title="No pod runs, and nothing bills" icon="box">
            Ask your agent for a GPU, or{" "}
            <Button kind="link" onPress={() => show("market")}>
              look at the market
            </Button>
          </Empty>
        ) : shown.length === 0 ? (
          <Empty title="No pod fits that" icon="search" />
        ) : (
          <Table
            label="pods"
            rows={shown}
            columns={columns}
            keyOf={(pod) => pod.key}
            nameOf={(pod) => pod.name ?? pod.key}
            open={openPod.value}
            onOpen={(id) => {
              openPod.value = id;
            }}
            detail={(pod) => <PodDetail pod={pod} backups={backups} />}
          />
        )}
        {data.next_cursor !== undefined && (
          <p class="foot quiet small">
            Only the first {count(pods.length)} of {count(number(data.total))} pods are shown.
          </p>
        )}
      </Panel>
      {isNoList(data.orders) && <p class="banner warn">The standing orders could not be read.</p>}
      {orders.length + unreadRows(data.orders) > 0 && <Orders orders={orders} unread={unreadRows(data.orders)} />}
    </>
  );
}

function columnsOf(
  newest: ReadonlyMap<string, Backup>,
  running: ReadonlyMap<string, Backup>,
  backupsKnown: boolean,
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
          <bdi class="clip quiet small" title={pod.template}>
            {pod.template ?? "\u00a0"}
          </bdi>
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
      cell: (pod) => usd(pod.costUsd),
    },
    { id: "removal", title: "Removed", by: (pod) => pod.removalAt ?? undefined, cell: (pod) => <Removal pod={pod} /> },
    {
      id: "backup",
      from: "wide",
      title: "Last backup",
      by: (pod) => newest.get(pod.id)?.at ?? undefined,
      cell: (pod) => <LastBackup backup={newest.get(pod.id)} running={running.get(pod.id)} known={backupsKnown} />,
    },
    {
      id: "actions",
      title: "Actions",
      silent: true,
      from: "wide",
      end: true,
      cell: (pod) =>
        openPod.value === pod.key ? null : (
          <PodActions
            pod={pod}
            lastBackup={() => lastBackupWords(newest.get(pod.id), backupsKnown, now.value)}
            compact
          />
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
    </span>
  );
}

function Removal({ pod }: { pod: Pod }) {
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
        <span class={idle === undefined && pod.phase === "running" ? "warn-text" : ""}>
          {idle === undefined ? "No time set" : `Once ${idle}`}
        </span>
        <span class="quiet small">{idle === undefined ? "bills until removed" : "\u00a0"}</span>
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

function LastBackup(props: { backup: Backup | undefined; running: Backup | undefined; known: boolean }) {
  const { backup, running, known } = props;
  if (running !== undefined)
    return (
      <span class="use">
        <Meter share={(running.progressPercent ?? 0) / 100} label="A backup is under way" />
        <span>{percent(running.progressPercent)}</span>
      </span>
    );
  if (backup === undefined) return <span class="quiet">{known ? "None" : UNKNOWN}</span>;
  return <span title={fullTime(backup.at)}>{ago(backup.at, now.value)}</span>;
}

function GpuUse({ pod, watched }: { pod: Pod; watched: boolean }) {
  const state = useReading(watched ? podSpec(pod.id, WATCHED_SECONDS) : undefined);
  const use = meanUse(gpusOf(record(state.data?.pod)));
  return (
    <span class="use">
      <Meter
        share={(use ?? 0) / 100}
        label={use === undefined ? "It is not known how busy the GPUs are" : `GPUs ${use.toFixed(0)} percent busy`}
      />
      <span>{percent(use)}</span>
    </span>
  );
}
