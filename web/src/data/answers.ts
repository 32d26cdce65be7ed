// Which answers are answers of their tool: what each one always has (as the server tells in its output schemas). What lacks
// that says nothing: not that a list is empty, and not that something was done.
import type { Answer } from "../host/host";
import { type Json, moment, record, text, told } from "./shapes";

type Check = (data: Json, args: Json) => boolean;

const lists =
  (field: string): Check =>
  (data) =>
    Array.isArray(data[field]);

/** What came of an action that may take a while. */
const OUTCOMES = new Set(["done", "partly_done", "failed", "pending", "dry_run"]);

function hasOutcome(data: Json): boolean {
  return typeof data.outcome === "string" && OUTCOMES.has(data.outcome);
}

/** Whether it is about the pod that was asked for, as far as it says so. */
function isOf(args: Json, podId: unknown): boolean {
  return podId === undefined || podId === args.pod;
}

function hasId(value: unknown, field: string): boolean {
  return text(record(value)[field]) !== undefined;
}

const CHECKS: Readonly<Record<string, Check>> = {
  list_pods: lists("pods"),
  get_pod: (data) => hasId(data.pod, "pod_id") || hasId(data.order, "status"),
  get_job: (data) => Array.isArray(data.jobs) || hasId(data.job, "job"),
  get_pod_logs: lists("lines"),
  list_backups: lists("backups"),
  list_gpus: lists("offers"),
  get_gpu_prices: lists("gpu_types"),
  quote_rental: (data) => "total_usd" in data,
  get_balance: (data) => "burn_per_hour_usd" in data || "balance_usd" in data,
  get_spending: lists("pods"),
  "lium://rents": lists("rents"),

  remove_pod: (data, args) => hasOutcome(data) && text(data.name) !== undefined && isOf(args, data.pod_id),
  schedule_pod_removal: (data, args) =>
    text(data.pod_id) === args.pod && text(data.name) !== undefined && moment(data.removal_at) !== undefined,
  // One that still has a time was not taken off.
  cancel_pod_removal: (data, args) =>
    text(data.pod_id) === args.pod && text(data.name) !== undefined && told(data.removal_at, moment) === undefined,
  create_backup: (data, args) =>
    hasOutcome(data) && hasId(data.backup, "backup_id") && isOf(args, record(data.backup).pod_id),
  rent_pod: (data) =>
    hasOutcome(data) && (data.outcome !== "done" || (hasId(data.pod, "pod_id") && hasId(data.pod, "name"))),
};

/** The same answer, or in place of what is none of this tool that it could not be read. */
export function readable(tool: string, args: Json, answer: Answer): Answer {
  const check = CHECKS[tool];
  if (!answer.ok || check === undefined || check(answer.data, args)) return answer;
  return { ok: false, code: "unreadable", message: `What came is no answer of ${tool}.` };
}
