// What the Money view reads, and what it makes of the answers.
import { signal } from "@preact/signals";
import type { Spec } from "../../data/readings";
import { flag, type Json, moment, number, records, text, unreadRows } from "../../data/shapes";

const DAY_MS = 86_400_000;
const MOST_DAYS = 366;
/** Rows that an answer has at most. */
export const PODS_A_PAGE = 50;

/** Of how many days spending is shown. */
export const spentDays = signal(7);

/** Charges of the last days by pod, the dearest first, and what each day cost. */
export function spendingSpec(days: number, cursor: string): Spec {
  return {
    tool: "get_spending",
    args: { days, by_day: true, limit: PODS_A_PAGE, ...(cursor === "" ? {} : { cursor }) },
    everySeconds: 120,
  };
}

/** UTC days from the first to the last: 2026-11-29. Undefined where these are no days, or too many to draw. */
export function daysBetween(first: string | undefined, last: string | undefined): readonly string[] | undefined {
  const [from, to] = [Date.parse(`${first}T00:00:00Z`), Date.parse(`${last}T00:00:00Z`)];
  const count = (to - from) / DAY_MS + 1;
  if (!Number.isInteger(count) || count < 1 || count > MOST_DAYS) return undefined;
  return Array.from({ length: count }, (_, i) => new Date(from + i * DAY_MS).toISOString().slice(0, 10));
}

/** The UTC days that a call for the last `count` days meant, where the answer says when it was made. */
function daysAsked(asOf: number | undefined, count: number): readonly string[] | undefined {
  if (asOf === undefined) return undefined;
  const day = (at: number): string => new Date(at).toISOString().slice(0, 10);
  return daysBetween(day(asOf - (count - 1) * DAY_MS), day(asOf));
}

/** What each day cost; undefined where none of it is told. */
export type ByDay = ReadonlyMap<string, number> | undefined;

function byDayOf(value: unknown): ByDay {
  if (!Array.isArray(value)) return undefined;
  return new Map(
    records(value).flatMap((given) => {
      const [day, usd] = [text(given.day), number(given.total_usd)];
      return day === undefined || usd === undefined ? [] : [[day, usd] as const];
    }),
  );
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
  readonly days: ByDay;
}

/** Whether a row says what a day cost. */
function isDay(given: Json): boolean {
  return text(given.day) !== undefined && number(given.total_usd) !== undefined;
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
  readonly days: ByDay;
  /** The days of the period that were asked for. */
  readonly period: readonly string[] | undefined;
  /** The period of the answer, in words, where that is not the one that was asked for. */
  readonly otherPeriod: string | undefined;
  /** Days outside of the period of which the answer tells charges. */
  readonly daysElsewhere: readonly string[];
  /** Rows of pods, and of days, that could not be read. */
  readonly unreadPods: number;
  readonly unreadDays: number;
  /** What the last day cost, if the answer tells that: one without a row cost nothing, as far as Lium lists it yet. */
  readonly todayUsd: number | undefined;
}

/** Reads charges; where so many days back were `asked` for, what is of other days is told apart. */
export function chargesOf(data: Json | undefined, asked?: number): Charges {
  const [first, last] = [text(data?.start_day), text(data?.end_day)];
  const told = daysBetween(first, last);
  const wanted = (asked === undefined ? undefined : daysAsked(moment(data?.as_of), asked)) ?? told;
  const period = told === undefined ? undefined : wanted?.filter((day) => told.includes(day));
  const days = byDayOf(data?.days);
  const today = wanted?.at(-1) ?? "";
  const unreadDays = unreadRows(data?.days, isDay);
  return {
    otherPeriod:
      told !== undefined && (told[0] !== wanted?.[0] || told.at(-1) !== wanted?.at(-1))
        ? `${first} to ${last}`
        : undefined,
    daysElsewhere: wanted === undefined ? [] : [...(days?.keys() ?? [])].filter((day) => !wanted.includes(day)),
    unreadPods: unreadRows(data?.pods),
    unreadDays,
    todayUsd: period?.includes(today) ? (days?.get(today) ?? (days && unreadDays === 0 ? 0 : undefined)) : undefined,
    pods: records(data?.pods)
      .slice(0, PODS_A_PAGE)
      .map((given, i) => ({
        id: text(given.pod_id) ?? `row ${i}`,
        name: text(given.name),
        gpu: text(given.gpu),
        totalUsd: number(given.total_usd),
        hours: number(given.billed_hours),
        running: flag(given.running) ?? false,
        createdAt: moment(given.created_at),
        removedAt: moment(given.removed_at),
        days: byDayOf(given.days),
      })),
    totalUsd: number(data?.total_usd),
    beyondUsd: number(data?.beyond_pods_usd),
    podCount: number(data?.total),
    incomplete: text(data?.incomplete),
    note: text(data?.note),
    nextCursor: text(data?.next_cursor),
    days,
    period,
  };
}

export interface Part {
  readonly label: string;
  /** One for each day. */
  readonly values: readonly number[];
}

const OTHERS = "Other pods";
/** Less is what rounding leaves. */
const LEAST_USD = 0.001;

/** What each day of the period cost, cut into the pods that cost most, and the rest; undefined where days are not told. */
export function partsOf({ days, period, pods }: Charges, most: number): readonly Part[] | undefined {
  if (days === undefined || period === undefined) return undefined;
  const charged = pods.filter((pod) => (pod.totalUsd ?? 0) > 0 && pod.days !== undefined);
  const own = [...charged].sort((a, b) => (b.totalUsd ?? 0) - (a.totalUsd ?? 0)).slice(0, most);
  const parts: Part[] = own.map((pod) => ({
    label: pod.name ?? pod.id,
    values: period.map((day) => Math.max(0, pod.days?.get(day) ?? 0)),
  }));
  const rest = period.map((day, i) => {
    const usd = parts.reduce((left, part) => left - (part.values[i] ?? 0), days.get(day) ?? 0);
    return usd < LEAST_USD ? 0 : usd;
  });
  return rest.some((usd) => usd > 0) ? [...parts, { label: OTHERS, values: rest }] : parts;
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
      const [allowed, used] = [number(given.allowed), number(given.used)];
      const isUsedUp = allowed !== undefined && used !== undefined && used >= allowed;
      return [
        {
          name,
          title,
          unit,
          allowed,
          only: text(given.only),
          used,
          left: isUsedUp ? 0 : number(given.left),
        },
      ];
    })
    .sort((a, b) => place(a.name) - place(b.name));
}
