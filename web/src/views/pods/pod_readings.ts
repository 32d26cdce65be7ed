// What the Pods view reads, and what it makes of the answers.
import type { Spec } from "../../data/readings";
import {
  flag,
  type Json,
  keyMaker,
  list,
  moment,
  number,
  record,
  records,
  type Told,
  text,
  texts,
  told,
  unreadRows,
} from "../../data/shapes";
import { ago, span, UNREADABLE } from "../../format";

export const PODS: Spec = { tool: "list_pods", args: { limit: 100 }, everySeconds: 15 };
export const BACKUPS: Spec = { tool: "list_backups", args: { limit: 100 } };
export const BALANCE: Spec = { tool: "get_balance", everySeconds: 60 };

/** How often one pod is read with its GPUs: rarely for the list, often for the one that is open. */
export const WATCHED_SECONDS = 120;
export const DETAIL_SECONDS = 30;

export function podSpec(pod: string, everySeconds: number): Spec {
  return { tool: "get_pod", args: { pod, wait_seconds: 0 }, everySeconds };
}
export function jobsSpec(pod: string): Spec {
  return { tool: "get_job", args: { pod, wait_seconds: 0 }, everySeconds: 30 };
}
export function logsSpec(pod: string): Spec {
  return { tool: "get_pod_logs", args: { pod, tail: 100 }, everySeconds: 30 };
}

export type Phase = "running" | "starting" | "ending" | "failed" | "other";

export interface Pod {
  /** Empty where Lium told none: nothing can be done to it then. */
  readonly id: string;
  /** What tells it from the others of its list. */
  readonly key: string;
  readonly name: string | undefined;
  /** What tells it from others of its name: its rank in a cluster, or how its id begins. */
  readonly mark: string | undefined;
  /** Its name with that. */
  readonly title: string;
  readonly clusterId: string | undefined;
  readonly clusterRank: number | undefined;
  /** The API key that rented it, where that was not this server: it may be somebody else's. */
  readonly keyName: string | undefined;
  /** Whether others of its list were rented otherwise, so that this tells it from them. */
  readonly isKeyUnlike: boolean;
  readonly status: string | undefined;
  readonly phase: Phase;
  readonly gpuType: string | undefined;
  readonly gpuCount: number | undefined;
  readonly pricePerHourUsd: number | undefined;
  readonly billing: boolean | undefined;
  readonly costUsd: number | undefined;
  readonly ageHours: number | undefined;
  readonly removalAt: Told<number>;
  /** Lium is to remove it so long after it has started, which it has not. */
  readonly removalHoursAfterStart: Told<number>;
  readonly idleMinutes: Told<number>;
  readonly finalBackup: boolean | undefined;
  readonly template: string | undefined;
  readonly ssh: string | undefined;
  readonly problem: string | undefined;
  readonly maintenance: string | undefined;
}

function podOf(given: Json, keyOf: (id: string | undefined) => string): Pod {
  const status = text(given.status);
  const clusterRank = number(given.cluster_rank);
  const [name, key] = [text(given.name), keyOf(text(given.pod_id))];
  const mark = clusterRank === undefined ? undefined : `rank ${clusterRank}`;
  return {
    id: text(given.pod_id) ?? "",
    key,
    name,
    mark,
    title: titled(name ?? key, mark),
    clusterId: text(given.cluster_id),
    clusterRank,
    keyName: text(given.rented_with_key),
    isKeyUnlike: false,
    status,
    phase: phaseOf(status),
    gpuType: text(given.gpu_type),
    gpuCount: number(given.gpu_count),
    pricePerHourUsd: number(given.price_per_hour_usd),
    billing: flag(given.billing),
    costUsd: number(given.cost_estimate_usd) ?? number(given.cost_so_far_usd),
    ageHours: number(given.age_hours),
    removalAt: given.removal_unreadable === true ? null : told(given.removal_at, moment),
    removalHoursAfterStart: told(given.removal_hours_after_boot, number),
    idleMinutes: told(given.idle_minutes, number),
    finalBackup: flag(given.final_backup),
    template: text(given.template) ?? text(record(given.template).name),
    ssh: text(given.ssh_command),
    problem: text(given.problem),
    maintenance: text(given.maintenance),
  };
}

export function podsOf(data: Json | undefined): readonly Pod[] {
  const keyOf = keyMaker();
  const pods = records(data?.pods).map((given) => podOf(given, keyOf));
  const taken = new Map<string, number>();
  for (const { title } of pods) taken.set(title, (taken.get(title) ?? 0) + 1);
  const isKeyUnlike = new Set(pods.map(({ keyName }) => keyName)).size > 1;
  return pods.map((pod) => {
    if (taken.get(pod.title) === 1 || pod.id === "") return { ...pod, isKeyUnlike };
    const mark = titled(pod.mark ?? "", pod.id.slice(0, 8));
    return { ...pod, isKeyUnlike, mark, title: titled(pod.name ?? pod.key, mark) };
  });
}

function titled(name: string, mark: string | undefined): string {
  return [name, mark].filter(Boolean).join(", ");
}

/** Whether something is to remove it at a time, or after one, that cannot be read. */
export function isUndated(pod: Pod): boolean {
  return pod.removalAt === null || (pod.removalAt === undefined && pod.removalHoursAfterStart === null);
}

/** Whether no time is set that ends it. */
export function isEndless(pod: Pod): boolean {
  return pod.removalAt === undefined && pod.removalHoursAfterStart === undefined;
}

/** Pods that the account has and the list does not tell: rows that cannot be read, and pages that are not here. */
export function untoldPods(data: Json | undefined): number {
  const rows = list(data?.pods).length;
  // Of a page that has a next one, the next has one pod at least.
  const total = number(data?.total) ?? rows + (told(data?.next_cursor, text) === undefined ? 0 : 1);
  return unreadRows(data?.pods) + Math.max(0, total - rows);
}

/** Whether it may have cost something that nobody can say: its price or its beginning is not known. */
export function isUncosted(pod: Pod): boolean {
  return pod.costUsd === undefined && !(pod.billing === false && pod.phase === "starting");
}

/** Lium's list of states is open: the words in a state tell what it is about. */
function phaseOf(status: string | undefined): Phase {
  const state = status?.toUpperCase() ?? "";
  if (state === "RUNNING") return "running";
  if (/FAIL|BROKEN|ERROR/.test(state)) return "failed";
  if (/DELET|STOP|TERMINAT|REMOV|CANCEL/.test(state)) return "ending";
  return /PENDING|CREAT|START|BOOT/.test(state) ? "starting" : "other";
}

export interface Gpu {
  readonly index: number;
  readonly name: string | undefined;
  readonly usePercent: number | undefined;
  readonly memoryUsedGb: number | undefined;
  readonly memoryTotalGb: number | undefined;
  readonly celsius: number | undefined;
  readonly processes: readonly string[];
}

export function gpusOf(pod: Json): readonly Gpu[] {
  return records(pod.gpus).map((gpu, i) => ({
    index: number(gpu.index) ?? i,
    name: text(gpu.name),
    usePercent: percentage(gpu.utilization_percent),
    memoryUsedGb: number(gpu.memory_used_gb),
    memoryTotalGb: number(gpu.memory_total_gb),
    celsius: number(gpu.temperature_celsius),
    processes: records(gpu.processes).flatMap((process) => text(process.name) ?? []),
  }));
}

function percentage(value: unknown): number | undefined {
  const given = number(value);
  return given === undefined || given < 0 || given > 100 ? undefined : given;
}

/** How busy the GPUs are on the whole; undefined where no figure is known. */
export function meanUse(gpus: readonly Gpu[]): number | undefined {
  const known = gpus.flatMap((gpu) => gpu.usePercent ?? []);
  return known.length === 0 ? undefined : known.reduce((sum, use) => sum + use, 0) / known.length;
}

export interface Backup {
  readonly key: string;
  readonly podId: string | undefined;
  readonly status: string | undefined;
  readonly at: Told<number>;
  readonly sizeGb: number | undefined;
  readonly progressPercent: number | undefined;
  readonly keptUntil: Told<number>;
  readonly path: string | undefined;
  readonly problem: string | undefined;
  readonly done: boolean;
  readonly running: boolean;
}

const FINAL = new Set(["COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "EXPIRED", "DELETED"]);

export function backupsOf(data: Json | undefined): readonly Backup[] {
  const keyOf = keyMaker();
  return records(data?.backups).map((given) => {
    const status = text(given.status)?.toUpperCase();
    const times = [given.completed_at, given.started_at, given.created_at].map((at) => told(at, moment));
    return {
      key: keyOf(text(given.backup_id)),
      podId: text(given.pod_id),
      status,
      at: times.find((at) => typeof at === "number") ?? (times.includes(null) ? null : undefined),
      sizeGb: number(given.size_gb),
      progressPercent: percentage(given.progress_percent),
      keptUntil: told(given.kept_until, moment),
      path: text(given.path),
      problem: text(given.problem) ?? text(given.message),
      done: status === "COMPLETED",
      running: status !== undefined && !FINAL.has(status),
    };
  });
}

/** How a pod is backed up: the newest backup that is complete, the one under way, and one that failed since. */
export interface BackedUp {
  readonly done: Backup | undefined;
  readonly running: Backup | undefined;
  readonly failed: Backup | undefined;
}

/** The same of each pod. */
export function backedUpOf(backups: readonly Backup[]): (pod: string) => BackedUp {
  const done = newestOf(backups.filter((backup) => backup.done));
  const running = newestOf(backups.filter((backup) => backup.running));
  const failed = newestOf(backups.filter(({ status }) => status !== undefined && /FAIL|ERROR/.test(status)));
  return (pod) => {
    const [last, tried] = [done.get(pod), failed.get(pod)];
    const isSince = tried !== undefined && (last === undefined || (tried.at ?? Infinity) > (last.at ?? 0));
    return { done: last, running: running.get(pod), failed: isSince ? tried : undefined };
  };
}

function newestOf(backups: readonly Backup[]): ReadonlyMap<string, Backup> {
  const newest = new Map<string, Backup>();
  for (const backup of backups) {
    if (backup.podId === undefined) continue;
    const other = newest.get(backup.podId);
    if (other === undefined || (backup.at ?? 0) > (other.at ?? 0)) newest.set(backup.podId, backup);
  }
  return newest;
}

export interface Order {
  readonly key: string;
  readonly name: string | undefined;
  readonly status: string | undefined;
  readonly wants: string | undefined;
  readonly hours: Told<number>;
  readonly maxUsdPerHour: Told<number>;
  readonly maxTotalUsd: Told<number>;
  readonly expiresAt: Told<number>;
  readonly because: string | undefined;
}

export function ordersOf(data: Json | undefined): readonly Order[] {
  const keyOf = keyMaker();
  return records(data?.orders).map((given) => ({
    key: keyOf(text(given.name)),
    name: text(given.name),
    status: text(given.status),
    wants: text(given.wants),
    hours: told(given.hours, number),
    maxUsdPerHour: told(given.max_usd_per_hour, number),
    maxTotalUsd: told(given.max_total_usd, number),
    expiresAt: told(given.expires_at, moment),
    because: text(given.because),
  }));
}

export interface Job {
  readonly key: string;
  readonly name: string;
  readonly status: string | undefined;
  readonly exitCode: Told<number>;
  readonly startedAt: Told<number>;
  readonly finishedAt: Told<number>;
  readonly afterwards: string | undefined;
  readonly problem: string | undefined;
}

export function jobsOf(data: Json | undefined): readonly Job[] {
  const given = records(data?.jobs);
  const keyOf = keyMaker();
  return (given.length > 0 ? given : data?.job === undefined ? [] : [record(data.job)]).map((job) => ({
    key: keyOf(text(job.job)),
    name: text(job.job) ?? "",
    status: text(job.status),
    exitCode: told(job.exit_code, number),
    startedAt: told(job.started_at, moment),
    finishedAt: told(job.finished_at, moment),
    afterwards: text(job.then),
    problem: text(job.problem),
  }));
}

/** For how long a job runs, or ran, in words. */
export function timeOfJob({ startedAt, finishedAt }: Job, now: number): string {
  if (startedAt === undefined) return "";
  if (startedAt === null || finishedAt === null) return `its time ${UNREADABLE}`;
  return finishedAt === undefined
    ? `for ${span((now - startedAt) / 1000)}`
    : `took ${span((finishedAt - startedAt) / 1000)}`;
}

export function warningsOf(data: Json | undefined, pod: Json): readonly string[] {
  return [
    ...texts(data?.warnings),
    ...texts(pod.warnings),
    ...[text(pod.note), text(pod.kept_because)].flatMap((x) => x ?? []),
  ];
}

/** Whether these are all backups of the account: what is not among a part of them may be there all the same. */
export function areAllBackups(data: Json | undefined): boolean {
  return (
    data !== undefined &&
    data.next_cursor === undefined &&
    data.incomplete === undefined &&
    unreadRows(data.backups) === 0
  );
}

/** When a pod was last backed up, in words, and what has come since. */
export function lastBackupWords({ done, running, failed }: BackedUp, all: boolean, now: number): string {
  const last = done !== undefined ? ago(done.at, now) : all ? "none" : "not known";
  const since =
    failed === undefined ? "" : `; ${done === undefined ? "one" : "a later one"} failed ${ago(failed.at, now)}`;
  return `${last}${since}${running === undefined ? "" : "; one is under way"}`;
}
