// What the Money view reads, and what it makes of the answers.
import type { Spec } from "../../data/readings";
import { flag, type Json, moment, number, records, text } from "../../data/shapes";

const DAY_MS = 86_400_000;
/** Rows that an answer has at most. */
export const PODS_A_PAGE = 50;

/** Charges of the last days by pod, the dearest first. */
export function spendingSpec(days: number, cursor: string): Spec {
  return {
    tool: "get_spending",
    args: { days, limit: PODS_A_PAGE, ...(cursor === "" ? {} : { cursor }) },
    everySeconds: 300,
  };
}

/** The UTC day of a moment, so many days before: 2026-11-29. */
export function dayOf(at: number, before = 0): string {
  return new Date(at - before * DAY_MS).toISOString().slice(0, 10);
}

/** The last UTC days, the oldest first. */
export function lastDays(at: number, count: number): readonly string[] {
  return Array.from({ length: count }, (_, i) => dayOf(at, count - 1 - i));
}

/** Charges of one day. Lium lists them some minutes late, so yesterday's may still come; days before are read once. */
export function daySpec(day: string, today: string): Spec {
  const args = { start_day: day, end_day: day, limit: 100 };
  const age = (Date.parse(today) - Date.parse(day)) / DAY_MS;
  return age > 1 ? { tool: "get_spending", args } : { tool: "get_spending", args, everySeconds: age > 0 ? 1800 : 300 };
}

export interface PodCharge {
  readonly id: string;
  readonly name: string | undefined;
  readonly gpu: string | undefined;
  readonly totalUsd: number | undefined;
  readonly hours: number | undefined;
  readonly running: boolean;
  readonly createdAt: number | undefined;
  readonly removedAt: number | undefined;
}

export interface Charges {
  readonly pods: readonly PodCharge[];
  readonly totalUsd: number | undefined;
  /** What was charged and is of no pod. */
  readonly beyondUsd: number | undefined;
  /** Pods of the period, also those of other pages. */
  readonly podCount: number | undefined;
  readonly incomplete: string | undefined;
  readonly note: string | undefined;
  readonly nextCursor: string | undefined;
}

export function chargesOf(data: Json | undefined): Charges {
  return {
    pods: records(data?.pods).map((given, i) => ({
      id: text(given.pod_id) ?? `row ${i}`,
      name: text(given.name),
      gpu: text(given.gpu),
      totalUsd: number(given.total_usd),
      hours: number(given.billed_hours),
      running: flag(given.running) ?? false,
      createdAt: moment(given.created_at),
      removedAt: moment(given.removed_at),
    })),
    totalUsd: number(data?.total_usd),
    beyondUsd: number(data?.beyond_pods_usd),
    podCount: number(data?.total),
    incomplete: text(data?.incomplete),
    note: text(data?.note),
    nextCursor: text(data?.next_cursor),
  };
}

export interface DayOfSpending {
  readonly day: string;
  /** Undefined where it was not read, or Lium states no total. */
  readonly charges: Charges | undefined;
  readonly failed: boolean;
}

export interface Part {
  readonly label: string;
  /** One for each day; undefined where nothing is known of that day. */
  readonly values: readonly (number | undefined)[];
}

const OTHERS = "Other pods";
const BEYOND = "Not of a pod";

/** Days cut into the pods that cost most over all of them, and the rest. */
export function partsOf(days: readonly DayOfSpending[], most: number): readonly Part[] {
  const sums = new Map<string, number>();
  const names = new Map<string, string>();
  for (const { charges } of days)
    for (const pod of charges?.pods ?? []) {
      sums.set(pod.id, (sums.get(pod.id) ?? 0) + Math.max(0, pod.totalUsd ?? 0));
      names.set(pod.id, pod.name ?? pod.id);
    }
  const dearest = [...sums].filter(([, sum]) => sum > 0).sort(([, a], [, b]) => b - a);
  const own = dearest.slice(0, dearest.length > most ? most - 1 : most).map(([id]) => id);
  const parts: Part[] = own.map((id) => ({
    label: names.get(id) ?? id,
    values: days.map(({ charges }) => charges && (charges.pods.find((pod) => pod.id === id)?.totalUsd ?? 0)),
  }));
  const rest = days.map(({ charges }) => {
    if (charges === undefined) return undefined;
    const shown = charges.pods.filter((pod) => own.includes(pod.id)).reduce((sum, pod) => sum + (pod.totalUsd ?? 0), 0);
    const listed = charges.pods.reduce((sum, pod) => sum + (pod.totalUsd ?? 0), 0);
    const ofPods = charges.totalUsd === undefined ? listed : charges.totalUsd - (charges.beyondUsd ?? 0);
    return Math.max(0, ofPods - shown);
  });
  const beyond = days.map(({ charges }) => charges && Math.max(0, charges.beyondUsd ?? 0));
  if (rest.some((value) => (value ?? 0) >= 0.005)) parts.push({ label: OTHERS, values: rest });
  if (beyond.some((value) => (value ?? 0) > 0)) parts.push({ label: BEYOND, values: beyond });
  return parts;
}

export interface Limit {
  readonly name: string;
  readonly title: string;
  readonly unit: "usd" | "usd_per_hour" | "hours" | "count" | undefined;
  readonly allowed: number | undefined;
  readonly only: string | undefined;
  readonly used: number | undefined;
  readonly left: number | undefined;
}

const KNOWN: Readonly<Record<string, readonly [string, Limit["unit"]]>> = {
  budget_usd: ["Budget", "usd"],
  budget_since: ["The budget counts from", undefined],
  max_burn_per_hour_usd: ["All pods together", "usd_per_hour"],
  max_price_per_hour_usd: ["Price of one pod", "usd_per_hour"],
  max_pods: ["Pods at once", "count"],
  max_hours: ["Life of a pod", "hours"],
  allow_gpu_types: ["GPU types", undefined],
  allow_countries: ["Countries", undefined],
  allow_templates: ["Templates", undefined],
};

export function limitsOf(data: Json | undefined): readonly Limit[] {
  const order = Object.keys(KNOWN);
  const place = (name: string): number => (order.includes(name) ? order.indexOf(name) : order.length);
  return records(data?.limits)
    .flatMap((given) => {
      const name = text(given.limit);
      if (name === undefined) return [];
      const [title, unit] = KNOWN[name] ?? [name.replaceAll("_", " "), undefined];
      return [
        {
          name,
          title,
          unit,
          allowed: number(given.allowed),
          only: text(given.only),
          used: number(given.used),
          left: number(given.left),
        },
      ];
    })
    .sort((a, b) => place(a.name) - place(b.name));
}
