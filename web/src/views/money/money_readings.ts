// What the Money view reads, and what it makes of the answers.
import { signal } from "@preact/signals";
import { incompleteOf } from "../../data/people";
import type { Spec } from "../../data/readings";
import {
  flag,
  type Json,
  keyMaker,
  moment,
  number,
  records,
  type Told,
  text,
  told,
  unreadRows,
} from "../../data/shapes";

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
  const byDay = new Map<string, number>();
  for (const given of records(value)) {
    const [day, usd] = [text(given.day), number(given.total_usd)];
    if (day !== undefined && usd !== undefined) byDay.set(day, (byDay.get(day) ?? 0) + usd);
  }
  return byDay;
}

export interface PodCharge {
  /** What tells it from the others of its page. */
  readonly key: string;
  readonly id: string | undefined;
  readonly name: string | undefined;
  readonly gpu: string | undefined;
  readonly totalUsd: number | undefined;
  readonly hours: number | undefined;
  readonly running: boolean;
  readonly createdAt: Told<number>;
  readonly removedAt: Told<number>;
  readonly days: ByDay;
}

/** What was charged for pods, as rows tell it: those of one pod stand in one. */
function podsOf(rows: readonly Json[]): readonly PodCharge[] {
  const keyOf = keyMaker();
  const byId = new Map<string, PodCharge>();
  for (const given of rows) {
    const id = text(given.pod_id);
    const row: PodCharge = {
      key: "",
      id,
      name: text(given.name),
      gpu: text(given.gpu),
      totalUsd: number(given.total_usd),
      hours: number(given.billed_hours),
      running: flag(given.running) ?? false,
      createdAt: told(given.created_at, moment),
      removedAt: told(given.removed_at, moment),
      days: byDayOf(given.days),
    };
    const other = id === undefined ? undefined : byId.get(id);
    if (other === undefined) {
      const key = keyOf(id);
      byId.set(id ?? key, { ...row, key });
    } else byId.set(other.key, together(other, row));
  }
  return [...byId.values()];
}

function together(one: PodCharge, other: PodCharge): PodCharge {
  return {
    ...one,
    name: one.name ?? other.name,
    gpu: one.gpu ?? other.gpu,
    totalUsd: sumOf(one.totalUsd, other.totalUsd),
    hours: sumOf(one.hours, other.hours),
    running: one.running || other.running,
    createdAt: one.createdAt ?? other.createdAt,
    removedAt: one.removedAt ?? other.removedAt,
    days: one.days && other.days && summed(one.days, other.days),
  };
}

/** Undefined where one is not known: what it adds is not zero. */
function sumOf(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? undefined : one + other;
}

function summed(one: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): ByDay {
  const all = new Map(one);
  for (const [day, usd] of other) all.set(day, (all.get(day) ?? 0) + usd);
  return all;
}

/** Whether a row says what a day cost. */
function isDay(given: Json): boolean {
  return text(given.day) !== undefined && number(given.total_usd) !== undefined;
}

export interface Charges {
  readonly pods: readonly PodCharge[];
  readonly totalUsd: number | undefined;
  /** What was charged and is of no pod. */
  readonly beyondUsd: Told<number>;
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
  const answered = daysBetween(first, last);
  const wanted = (asked === undefined ? undefined : daysAsked(moment(data?.as_of), asked)) ?? answered;
  const period = answered === undefined ? undefined : wanted?.filter((day) => answered.includes(day));
  const days = byDayOf(data?.days);
  const today = wanted?.at(-1) ?? "";
  const unreadDays = unreadRows(data?.days, isDay);
  return {
    otherPeriod:
      answered !== undefined && (answered[0] !== wanted?.[0] || answered.at(-1) !== wanted?.at(-1))
        ? `${first} to ${last}`
        : undefined,
    daysElsewhere: wanted === undefined ? [] : [...(days?.keys() ?? [])].filter((day) => !wanted.includes(day)),
    unreadPods: unreadRows(data?.pods),
    unreadDays,
    todayUsd: period?.includes(today) ? (days?.get(today) ?? (days && unreadDays === 0 ? 0 : undefined)) : undefined,
    pods: podsOf(records(data?.pods).slice(0, PODS_A_PAGE)),
    totalUsd: number(data?.total_usd),
    beyondUsd: told(data?.beyond_pods_usd, number),
    podCount: number(data?.total),
    incomplete: incompleteOf(data),
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
const LEAST_MISFIT_USD = 0.015;

/** What each day of the period cost, cut into the pods with the largest charges, and the rest; undefined where days are not told. */
export function partsOf({ days, period, pods }: Charges, most: number): readonly Part[] | undefined {
  if (days === undefined || period === undefined) return undefined;
  const parts = pods
    .map((pod) => ({ label: pod.name ?? pod.key, values: period.map((day) => seen(pod.days?.get(day) ?? 0)) }))
    .filter(({ values }) => values.some((usd) => usd !== 0))
    .sort((a, b) => sizeOf(b) - sizeOf(a))
    .slice(0, most);
  const rest = period.map((day, i) =>
    seen(parts.reduce((left, part) => left - (part.values[i] ?? 0), days.get(day) ?? 0)),
  );
  return rest.some((usd) => usd !== 0) ? [...parts, { label: OTHERS, values: rest }] : parts;
}

function seen(usd: number): number {
  return Math.abs(usd) < LEAST_USD ? 0 : usd;
}

/** What was charged and given back in it, together. */
function sizeOf({ values }: Part): number {
  return values.reduce((sum, usd) => sum + Math.abs(usd), 0);
}

/** What the days add up to and the total does not, where all of it is told and that is more than rounding. */
export function unfitUsd({ days, totalUsd, beyondUsd, incomplete, unreadDays }: Charges): number | undefined {
  if (days === undefined || totalUsd === undefined || incomplete !== undefined || unreadDays > 0) return undefined;
  if (beyondUsd === null) return undefined;
  const sum = [...days.values()].reduce((all, usd) => all + usd, 0);
  return Math.abs(sum + (beyondUsd ?? 0) - totalUsd) < LEAST_MISFIT_USD ? undefined : sum;
}
