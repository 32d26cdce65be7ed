// One pod in full: its GPUs, how to reach it, its jobs, backups, logs and last events.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { now, refresh, type State, useReading } from "../../data/readings";
import {
  flag,
  isNoList,
  lines,
  list,
  moment,
  number,
  record,
  records,
  tableOf,
  text,
  told,
  unreadRows,
} from "../../data/shapes";
import { ago, clock, fullTime, gb, plural, sentence, span, UNKNOWN, UNREADABLE, until, usd } from "../../format";
import { Badge, Copy, Meter, Read, type Tone, Unread } from "../../ui/parts";
import { PodActions } from "./pod_actions";
import {
  areAllBackups,
  backedUpOf,
  backupsOf,
  DETAIL_SECONDS,
  type Gpu,
  gpusOf,
  jobsOf,
  jobsSpec,
  lastBackupWords,
  logsSpec,
  type Pod,
  podSpec,
  timeOfJob,
  warningsOf,
} from "./pod_readings";

export function PodDetail({ pod, backups }: { pod: Pod; backups: State }) {
  const state = useReading(podSpec(pod.id, DETAIL_SECONDS));
  const mine = backupsOf(backups.data).filter((backup) => backup.podId === pod.id);
  return (
    <div class="pod">
      <PodActions
        pod={pod}
        lastBackup={() => lastBackupWords(backedUpOf(mine)(pod.id), areAllBackups(backups.data), now.value)}
      />
      <Read state={state} label="the pod" again={() => void refresh("get_pod")}>
        {(data) => {
          const full = record(data.pod);
          return (
            <>
              {warningsOf(data, full).map((warning, i) => (
                <p key={i} class="banner foreign">
                  {warning}
                </p>
              ))}
              <div class="grid">
                <section>
                  <h3>GPUs now</h3>
                  <Gpus gpus={gpusOf(full)} />
                </section>
                <section>
                  <h3>Pod</h3>
                  <Facts full={full} pod={pod} />
                </section>
                <div class="stack">
                  <section>
                    <h3>Jobs</h3>
                    {pod.phase === "running" ? <Jobs pod={pod.id} /> : <p class="quiet">The pod does not run.</p>}
                  </section>
                  <section>
                    <h3>Backups</h3>
                    <Backups state={backups} pod={pod.id} />
                  </section>
                </div>
                <section class="wide">
                  <h3>Newest output</h3>
                  <Logs pod={pod.id} />
                </section>
                <section class="wide">
                  <h3>Last events</h3>
                  <Events full={full} />
                </section>
              </div>
            </>
          );
        }}
      </Read>
    </div>
  );
}

function Gpus({ gpus }: { gpus: readonly Gpu[] }) {
  if (gpus.length === 0) return <p class="quiet">What they do is not known now.</p>;
  return (
    <ul class="rows">
      {gpus.map((gpu, i) => {
        const memory =
          gpu.memoryTotalGb === undefined || gpu.memoryUsedGb === undefined
            ? undefined
            : gpu.memoryUsedGb / gpu.memoryTotalGb;
        return (
          <li key={i} class="gpu">
            <div class="line">
              <span class="quiet">{gpu.index}</span>
              <span class="foreign">{gpu.name ?? "GPU"}</span>
              <span class="push quiet">{gpu.celsius === undefined ? "" : `${gpu.celsius} °C`}</span>
            </div>
            <div class="bars">
              <span class="quiet small">Use</span>
              <Meter
                share={gpu.usePercent === undefined ? undefined : gpu.usePercent / 100}
                label={`GPU ${gpu.index} ${gpu.usePercent ?? "unknown"} percent busy`}
              />
              <span class="number">{gpu.usePercent === undefined ? UNKNOWN : `${gpu.usePercent.toFixed(0)}%`}</span>
              <span class="quiet small">Memory</span>
              <Meter share={memory} tone={(memory ?? 0) > 0.95 ? "warn" : "accent"} label={`GPU ${gpu.index} memory`} />
              <span class="number">
                {gb(gpu.memoryUsedGb)}
                <span class="quiet"> of {gb(gpu.memoryTotalGb)}</span>
              </span>
            </div>
            {gpu.processes.length > 0 && <p class="quiet small foreign">{gpu.processes.slice(0, 6).join(", ")}</p>}
          </li>
        );
      })}
    </ul>
  );
}

function Facts({ full, pod }: { full: ReturnType<typeof record>; pod: Pod }) {
  const template = record(full.template);
  const ssh = text(full.ssh_command);
  const ports = Object.entries(record(full.ports)).slice(0, 20);
  const jupyter = text(full.jupyter_url);
  const createdAt = told(full.created_at, moment);
  const idleMinutes = told(full.idle_for_minutes, number);
  const rows: readonly (readonly [string, ComponentChildren])[] = [
    ["Cost so far", usd(number(full.cost_so_far_usd))],
    ["SSH", ssh === undefined ? undefined : <Copy value={ssh} label="Copy the SSH command" />],
    ["SSH answers", flag(full.ssh_answers) === undefined ? undefined : flag(full.ssh_answers) ? "Yes" : "No"],
    [
      "Template",
      text(template.name) === undefined ? undefined : (
        <span class="foreign">
          {text(template.name)} <span class="quiet mono">{text(template.image)}</span>
        </span>
      ),
    ],
    ["Local volume", text(full.local_volume_path) && <code class="mono foreign">{text(full.local_volume_path)}</code>],
    ["Volume", text(full.volume_id) && <code class="mono foreign">{text(full.volume_id)}</code>],
    [
      "Ports",
      ports.length > 0 && (
        <span class="foreign mono">
          {ports.map(([inside, outside]) => `${inside} → ${text(outside) ?? UNKNOWN}`).join(", ")}
        </span>
      ),
    ],
    ["Jupyter", jupyter && <code class="mono foreign">{jupyter}</code>],
    ["Began", createdAt !== undefined && <span title={fullTime(createdAt)}>{ago(createdAt, now.value)}</span>],
    ["Idle for", idleMinutes !== undefined && (idleMinutes === null ? UNREADABLE : span(idleMinutes * 60))],
    [
      "Cluster",
      pod.clusterId && (
        <span class="foreign">
          {pod.clusterRank !== undefined && `Rank ${pod.clusterRank} of `}
          <span class="mono">{pod.clusterId}</span>
        </span>
      ),
    ],
    ["API key", pod.keyName && <bdi class={pod.isKeyUnlike ? "warn-text" : undefined}>{pod.keyName}</bdi>],
    ["Pod id", text(full.pod_id) && <Copy value={text(full.pod_id) ?? ""} label="Copy the pod's id" />],
    ["Node", text(full.executor_id) && <code class="mono foreign">{text(full.executor_id)}</code>],
  ];
  return (
    <dl class="facts">
      {rows
        .filter(([, value]) => value !== undefined && value !== false && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

const JOB_TONE = tableOf<Tone>({
  succeeded: "good",
  running: "accent",
  starting: "accent",
  failed: "bad",
  error: "bad",
  lost: "bad",
  timed_out: "warn",
  budget_exhausted: "warn",
});

function Jobs({ pod }: { pod: string }) {
  const state = useReading(jobsSpec(pod));
  return (
    <Read state={state} label="jobs" rows={1} again={() => void refresh("get_job")}>
      {(data) => {
        const jobs = jobsOf(data);
        const unread = unreadRows(data.jobs);
        if (jobs.length + unread === 0) return <p class="quiet">No job was started in it.</p>;
        return (
          <>
            <Unread rows={unread} />
            <ul class="rows">
              {jobs.map((job) => (
                <li key={job.key}>
                  <div class="line">
                    <bdi class="strong">{job.name}</bdi>
                    <Badge tone={JOB_TONE.get(job.status ?? "") ?? "plain"}>
                      {job.status?.replaceAll("_", " ") ?? UNKNOWN}
                    </Badge>
                    {job.exitCode !== undefined && <span class="quiet">exit {job.exitCode ?? UNREADABLE}</span>}
                    <span class="push quiet">{timeOfJob(job, now.value)}</span>
                  </div>
                  {job.afterwards !== undefined && (
                    <p class="quiet small">Then: {job.afterwards.replaceAll("_", " ")}</p>
                  )}
                  {job.problem !== undefined && <p class="small foreign bad-text">{job.problem}</p>}
                </li>
              ))}
            </ul>
          </>
        );
      }}
    </Read>
  );
}

function Backups({ state, pod }: { state: State; pod: string }) {
  return (
    <Read state={state} label="backups" rows={1} again={() => void refresh("list_backups")}>
      {(data) => {
        const backups = backupsOf(data).filter((backup) => backup.podId === pod);
        const unread = unreadRows(data.backups);
        if (backups.length === 0)
          return (
            <p class="quiet">
              {areAllBackups(data)
                ? "None of this pod. What it holds is lost with it."
                : unread > 0
                  ? `None of this pod could be read: ${plural(unread, "row")} of the list could not be.`
                  : "None of this pod is among the newest of the account."}
            </p>
          );
        return (
          <>
            <Unread rows={unread} />
            <ul class="rows">
              {backups.slice(0, 6).map((backup) => (
                <li key={backup.key}>
                  <div class="line">
                    <Badge tone={backup.done ? "good" : backup.running ? "accent" : "warn"}>
                      {backup.status?.replaceAll("_", " ").toLowerCase() ?? UNKNOWN}
                    </Badge>
                    <span title={fullTime(backup.at)}>{ago(backup.at, now.value)}</span>
                    <span class="push">
                      {backup.running && backup.progressPercent !== undefined
                        ? `${backup.progressPercent.toFixed(0)}%`
                        : gb(backup.sizeGb)}
                    </span>
                  </div>
                  {backup.keptUntil !== undefined && (
                    <p class="quiet small">Kept {until(backup.keptUntil, now.value)}</p>
                  )}
                  {backup.problem !== undefined && <p class="small foreign">{backup.problem}</p>}
                </li>
              ))}
            </ul>
          </>
        );
      }}
    </Read>
  );
}

const MOST_LOG_CHARACTERS = 200_000;

function Logs({ pod }: { pod: string }) {
  const state = useReading(logsSpec(pod));
  return (
    <Read state={state} label="the output" rows={2} again={() => void refresh("get_pod_logs")}>
      {(data) => {
        const told = list(data.lines);
        const unread = told.filter((line) => typeof line !== "string").length;
        const said = told
          .flatMap((line) => lines(line) ?? [])
          .join("\n")
          .slice(-MOST_LOG_CHARACTERS);
        return (
          <>
            <Unread rows={unread} what="line" />
            {said !== "" && <Log said={said} />}
            {said === "" && unread === 0 && <p class="quiet">Its main process has written nothing.</p>}
          </>
        );
      }}
    </Read>
  );
}

/** Stands at the newest line, unless somebody scrolled up to read. */
function Log({ said }: { said: string }) {
  const box = useRef<HTMLPreElement>(null);
  const follows = useRef(true);
  useLayoutEffect(() => {
    if (box.current !== null && follows.current) box.current.scrollTop = box.current.scrollHeight;
  }, [said]);
  return (
    <pre
      ref={box}
      class="log"
      role="log"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard.
      tabIndex={0}
      aria-label="Newest output of the pod"
      onScroll={({ currentTarget: at }) => {
        follows.current = at.scrollHeight - at.scrollTop - at.clientHeight < 8;
      }}
    >
      {said}
    </pre>
  );
}

/** What happened, as people say it, where the code is one that Lium's documents name; else its own words. */
const EVENTS = tableOf<string>({
  "pod-rent.requested": "Rent requested",
  "pod-create.success": "Created",
  "pod-create.warning": "Created, with a warning",
  "pod-create.failed": "Creation failed",
  "pod-delete.success": "Removed",
  "worker-pod-delete.success": "Removed from its node",
  "pod-reboot.success": "Rebooted",
  "pod-reboot.failed": "Reboot failed",
  "pod-edit.success": "Changed",
  "pod-switch-template.success": "Template switched",
  "pod-add-ssh-key.success": "SSH key added",
  "pod-host-reboot-recovery.recovered": "Recovered after its node rebooted",
  "pod-lifecycle.status": "New state",
});

function eventWords(code: string | undefined): string | undefined {
  const words = code?.replaceAll(/[-._]+/g, " ");
  return EVENTS.get(code ?? "") ?? (words && words.charAt(0).toUpperCase() + words.slice(1));
}

function Events({ full }: { full: ReturnType<typeof record> }) {
  const events = records(full.last_events);
  const unread = unreadRows(full.last_events);
  if (isNoList(full.last_events)) return <p class="small warn-text">They could not be read.</p>;
  if (events.length + unread === 0) return <p class="quiet">None are told.</p>;
  return (
    <>
      <Unread rows={unread} />
      <ul class="rows">
        {events.slice(-12).map((event, i) => (
          <li key={`${text(event.at)} ${i}`} class="line">
            <span class="quiet number" title={fullTime(moment(event.at))}>
              {clock(told(event.at, moment), now.value)}
            </span>
            <span class="foreign" title={text(event.event)}>
              {eventWords(text(event.event)) ?? UNKNOWN}
            </span>
            {text(event.status) !== undefined && <span class="quiet foreign">{sentence(text(event.status))}</span>}
            <span class="foreign bad-text">{text(event.failure) ?? text(event.error) ?? ""}</span>
            <span class="quiet foreign">{text(event.detail) ?? text(event.reason) ?? ""}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
