// What the Pods view reads, and what it makes of the answers.
import type { Spec } from "../../data/readings";
import { flag, type Json, list, moment, number, record, records, text, texts, unreadRows } from "../../data/shapes";
import { ago } from "../../format";

export const PODS: Spec = { tool: "list_pods", args: { limit: 100 }, everySeconds: 15 };
export const BACKUPS: Spec = { tool: "list_backups", args: { limit: 100 } };
export const BALANCE: Spec = { tool: "get_balance", everySeconds: 60 };

/** One pod with its GPUs; rarely for the list, often for the one that is open. */
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
  readonly status: string | undefined;
  readonly phase: Phase;
  readonly gpuType: string | undefined;
  readonly gpuCount: number | undefined;
  readonly pricePerHourUsd: number | undefined;
  readonly billing: boolean | undefined;
  readonly costUsd: number | undefined;
  readonly ageHours: number | undefined;
  readonly removalAt: number | undefined;
  /** Lium is to remove it so long after it has started, which it has not. */
  readonly removalHoursAfterStart: number | undefined;
  readonly idleMinutes: number | undefined;
  readonly finalBackup: boolean | undefined;
  readonly template: string | undefined;
  readonly ssh: string | undefined;
  readonly problem: string | undefined;
  readonly maintenance: string | undefined;
}

export function podOf(given: Json, i: number): Pod {
  const status = text(given.status);
  return {
    id: text(given.pod_id) ?? "",
    key: text(given.pod_id) ?? `row ${i}`,
    name: text(given.name),
    status,
    phase: phaseOf(status),
    gpuType: text(given.gpu_type),
    gpuCount: number(given.gpu_count),
    pricePerHourUsd: number(given.price_per_hour_usd),
    billing: flag(given.billing),
    costUsd: number(given.cost_estimate_usd) ?? number(given.cost_so_far_usd),
    ageHours: number(given.age_hours),
    removalAt: moment(given.removal_at),
    removalHoursAfterStart: number(given.removal_hours_after_boot),
    idleMinutes: number(given.idle_minutes),
    finalBackup: flag(given.final_backup),
    template: text(given.template) ?? text(record(given.template).name),
    ssh: text(given.ssh_command),
    problem: text(given.problem),
    maintenance: text(given.maintenance),
  };
}

export function podsOf(data: Json | undefined): readonly Pod[] {
  return records(data?.pods).map(podOf);
}

/** Pods that the account has and the list does not tell: rows that cannot be read, and pages that are not here. */
export function untoldPods(data: Json | undefined): number {
  const rows = list(data?.pods).length;
  return unreadRows(data?.pods) + Math.max(0, (number(data?.total) ?? rows) - rows);
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
  readonly id: string;
  readonly podId: string | undefined;
  readonly status: string | undefined;
  readonly at: number | undefined;
  readonly sizeGb: number | undefined;
  readonly progressPercent: number | undefined;
  readonly keptUntil: number | undefined;
  readonly path: string | undefined;
  readonly problem: string | undefined;
  readonly done: boolean;
  readonly running: boolean;
}

const FINAL = new Set(["COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "EXPIRED", "DELETED"]);

export function backupsOf(data: Json | undefined): readonly Backup[] {
  return records(data?.backups).map((given) => {
    const status = text(given.status)?.toUpperCase();
    return {
      id: text(given.backup_id) ?? "",
      podId: text(given.pod_id),
      status,
      at: moment(given.completed_at) ?? moment(given.started_at) ?? moment(given.created_at),
      sizeGb: number(given.size_gb),
      progressPercent: percentage(given.progress_percent),
      keptUntil: moment(given.kept_until),
      path: text(given.path),
      problem: text(given.problem) ?? text(given.message),
      done: status === "COMPLETED",
      running: status !== undefined && !FINAL.has(status),
    };
  });
}

/** The backup of each pod that is under way, if one is. */
export function runningBackups(backups: readonly Backup[]): ReadonlyMap<string, Backup> {
  return new Map(
    backups.flatMap((backup) => (backup.running && backup.podId !== undefined ? [[backup.podId, backup]] : [])),
  );
}

/** The newest completed backup of each pod. */
export function newestBackups(backups: readonly Backup[]): ReadonlyMap<string, Backup> {
  const newest = new Map<string, Backup>();
  for (const backup of backups) {
    if (!backup.done || backup.podId === undefined) continue;
    const other = newest.get(backup.podId);
    if (other === undefined || (backup.at ?? 0) > (other.at ?? 0)) newest.set(backup.podId, backup);
  }
  return newest;
}

export interface Order {
  readonly name: string | undefined;
  readonly status: string | undefined;
  readonly wants: string | undefined;
  readonly hours: number | undefined;
  readonly maxUsdPerHour: number | undefined;
  readonly maxTotalUsd: number | undefined;
  readonly expiresAt: number | undefined;
  readonly lookedAt: number | undefined;
  readonly because: string | undefined;
}

export function ordersOf(data: Json | undefined): readonly Order[] {
  return records(data?.orders).map((given) => ({
    name: text(given.name),
    status: text(given.status),
    wants: text(given.wants),
    hours: number(given.hours),
    maxUsdPerHour: number(given.max_usd_per_hour),
    maxTotalUsd: number(given.max_total_usd),
    expiresAt: moment(given.expires_at),
    lookedAt: moment(given.looked_at),
    because: text(given.because),
  }));
}

export interface Job {
  readonly name: string;
  readonly status: string | undefined;
  readonly exitCode: number | undefined;
  readonly startedAt: number | undefined;
  readonly finishedAt: number | undefined;
  readonly afterwards: string | undefined;
  readonly problem: string | undefined;
}

export function jobsOf(data: Json | undefined): readonly Job[] {
  const given = records(data?.jobs);
  return (given.length > 0 ? given : data?.job === undefined ? [] : [record(data.job)]).map((job) => ({
    name: text(job.job) ?? "",
    status: text(job.status),
    exitCode: number(job.exit_code),
    startedAt: moment(job.started_at),
    finishedAt: moment(job.finished_at),
    afterwards: text(job.then),
    problem: text(job.problem),
  }));
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

/** When a pod was last backed up, in words. */
export function lastBackupWords(newest: Backup | undefined, all: boolean, now: number): string {
  if (newest !== undefined) return ago(newest.at, now);
  return all ? "none" : "not known";
}
