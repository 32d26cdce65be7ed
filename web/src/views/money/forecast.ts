// How the balance goes on from now, if nothing is rented, added or removed but by the removal times that are set.

import { span } from "../../format";
import type { Point } from "../../ui/chart";
import { isEndless, isUndated, type Pod } from "../pods/pod_readings";

const HOUR_MS = 3_600_000;
/** Farther ahead nothing is foreseen. */
const MOST_MS = 30 * 24 * HOUR_MS;

export interface Forecast {
  /** When, and with what, it begins. */
  readonly from: number;
  readonly balanceUsd: number;
  /** What all pods of a known price burn together that bill now, or will once they have started. */
  readonly burnUsd: number;
  readonly withRemovals: readonly Point[];
  /** If all of them ran on; absent where that is the same. */
  readonly runningOn: readonly Point[] | undefined;
  /** When nothing would be left then; undefined where nothing burns, or nothing is left. */
  readonly runsOutAt: number | undefined;
  /** When nothing is left; undefined where removals come first. */
  readonly endsAt: number | undefined;
  /** What is left once the last pod is removed; undefined where some run on. */
  readonly leftUsd: number | undefined;
  /** When the last pod is removed; undefined where some run on. */
  readonly lastRemovalAt: number | undefined;
  /** Billing pods whose price nobody says: the balance goes faster than drawn. */
  readonly unpriced: number;
  /** Pods that start: counted as billing from now on, since they soon will. */
  readonly starting: number;
  /** Pods that have no removal time, and those whose time cannot be read. */
  readonly endless: number;
  readonly undated: number;
}

/** Whether a pod bills, as far as that is told, or soon will. */
function bills(pod: Pod): boolean {
  return pod.phase === "starting" || (pod.billing ?? pod.phase === "running");
}

/** When a pod is removed; of one that starts, as if it had started now. */
function removalOf({ removalAt, removalHoursAfterStart }: Pod, now: number): number | undefined {
  if (typeof removalAt === "number") return Math.max(removalAt, now);
  return typeof removalHoursAfterStart === "number" ? now + removalHoursAfterStart * HOUR_MS : undefined;
}

/** How long a balance lasts that is not used up, both with the removals that are set and without: they are far apart. */
export function lastsInWords({ runningOn, runsOutAt, endsAt }: Forecast, now: number): string | undefined {
  if (runsOutAt === undefined) return undefined;
  const all = `${span((runsOutAt - now) / 1000)}${runningOn === undefined ? "" : " if all run on"}`;
  if (runningOn === undefined) return `lasts ${all}`;
  return endsAt === undefined
    ? `lasts past all removals; ${all}`
    : `lasts ${span((endsAt - now) / 1000)} with the removals set; ${all}`;
}

export function forecast(balanceUsd: number, pods: readonly Pod[], now: number): Forecast {
  const billing = pods.filter(bills);
  const priced = billing.flatMap((pod) =>
    pod.pricePerHourUsd === undefined || pod.pricePerHourUsd < 0
      ? []
      : [{ usd: pod.pricePerHourUsd, removalAt: removalOf(pod, now) }],
  );
  const burnUsd = priced.reduce((sum, { usd }) => sum + usd, 0);
  const removals = priced.flatMap(({ removalAt }) => removalAt ?? []).sort((a, b) => a - b);
  const undated = billing.filter(isUndated).length;
  const endless = billing.filter(isEndless).length;
  const burnAfter = (at: number): number =>
    priced.reduce((sum, pod) => (pod.removalAt !== undefined && pod.removalAt <= at ? sum : sum + pod.usd), 0);

  const withRemovals: Point[] = [{ x: now, y: balanceUsd }];
  let left = balanceUsd;
  let at = now;
  let endsAt: number | undefined = balanceUsd <= 0 ? now : undefined;
  for (const next of [...new Set(removals), Number.POSITIVE_INFINITY]) {
    if (endsAt !== undefined) break;
    const burn = burnAfter(at);
    if (burn > 0 && left - (burn * (next - at)) / HOUR_MS <= 0) {
      endsAt = at + (left / burn) * HOUR_MS;
      left = 0;
      withRemovals.push({ x: endsAt, y: 0 });
    } else if (Number.isFinite(next)) {
      left -= (burn * (next - at)) / HOUR_MS;
      at = next;
      if (next > now) withRemovals.push({ x: next, y: left });
    }
  }
  const allEnd = endless + undated === 0 && endsAt === undefined;
  const runsOutAt = burnUsd > 0 && balanceUsd > 0 ? now + (balanceUsd / burnUsd) * HOUR_MS : undefined;
  const horizon = Math.min(now + MOST_MS, endsAt ?? Math.max(removals.at(-1) ?? now, runsOutAt ?? now));
  const drawn = upTo(withRemovals, horizon);
  const last = drawn.at(-1);
  // Where nothing burns any more, the line goes on level.
  if (last !== undefined && last.x < horizon) drawn.push({ x: horizon, y: last.y });
  return {
    from: now,
    balanceUsd,
    burnUsd,
    withRemovals: drawn,
    runningOn: removals.length === 0 || burnUsd === 0 ? undefined : straight(balanceUsd, burnUsd, now, horizon),
    runsOutAt,
    starting: billing.filter(({ phase, billing: now }) => phase === "starting" && now !== true).length,
    endsAt,
    leftUsd: allEnd ? left : undefined,
    lastRemovalAt: allEnd ? removals.at(-1) : undefined,
    unpriced: billing.length - priced.length,
    endless,
    undated,
  };
}

/** The same line cut off at a moment. */
function upTo(points: readonly Point[], end: number): Point[] {
  const drawn: Point[] = [];
  for (const [i, point] of points.entries()) {
    const before = points[i - 1];
    if (point.x > end && before?.y !== undefined && point.y !== undefined) {
      drawn.push({ x: end, y: before.y + ((point.y - before.y) * (end - before.x)) / (point.x - before.x) });
      break;
    }
    drawn.push(point);
  }
  return drawn;
}

function straight(balanceUsd: number, burnUsd: number, now: number, horizon: number): readonly Point[] {
  const end = now + (balanceUsd / burnUsd) * HOUR_MS;
  return upTo(
    [
      { x: now, y: balanceUsd },
      { x: Math.max(end, now), y: 0 },
    ],
    horizon,
  );
}

/** Lines over the same moments: each point of one is one of the others too, so that they can be compared at each. */
export function aligned(lines: readonly (readonly Point[])[]): readonly (readonly Point[])[] {
  const moments = [...new Set(lines.flatMap((line) => line.map(({ x }) => x)))].sort((a, b) => a - b);
  return lines.map((line) => moments.flatMap((x) => at(line, x) ?? []));
}

function at(line: readonly Point[], x: number): Point | undefined {
  const after = line.findIndex((point) => point.x >= x);
  const [to, from] = [line[after], line[after - 1]];
  if (to === undefined) return undefined;
  if (to.x === x) return to;
  if (from?.y === undefined || to.y === undefined) return undefined;
  return { x, y: from.y + ((to.y - from.y) * (x - from.x)) / (to.x - from.x) };
}
