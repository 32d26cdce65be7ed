// The limits of the server (get_balance and the resource lium://policy tell them), and what they will refuse of what a
// person composes here. It foresees, as far as the last reading tells; the server judges.
import { count, hours as hoursInWords, price, usd } from "../format";
import { type Json, number, records, type Told, tableOf, text, texts, told } from "./shapes";

export interface Limit {
  readonly name: string;
  readonly title: string;
  readonly unit: "usd" | "usd_per_hour" | "hours" | "count" | undefined;
  readonly allowed: number | undefined;
  readonly only: string | undefined;
  readonly used: Told<number>;
  readonly left: number | undefined;
}

const KNOWN = tableOf<readonly [string, Limit["unit"]]>({
  budget_usd: ["Budget", "usd"],
  budget_since: ["The budget counts from", undefined],
  max_burn_per_hour_usd: ["All pods together", "usd_per_hour"],
  max_price_per_hour_usd: ["Price of one pod", "usd_per_hour"],
  max_pods: ["Pods at once", "count"],
  max_hours: ["Life of a pod", "hours"],
  allow_gpu_types: ["GPU types", undefined],
  allow_countries: ["Countries", undefined],
  allow_templates: ["Templates", undefined],
});

export function limitsOf(data: Json | undefined): readonly Limit[] {
  const order = [...KNOWN.keys()];
  const place = (name: string): number => (order.includes(name) ? order.indexOf(name) : order.length);
  return records(data?.limits)
    .flatMap((given) => {
      const name = text(given.limit);
      if (name === undefined) return [];
      const [title, unit] = KNOWN.get(name) ?? [name.replaceAll("_", " "), undefined];
      const [allowed, used] = [number(given.allowed), told(given.used, number)];
      const isUsedUp = allowed !== undefined && typeof used === "number" && used >= allowed;
      const left = isUsedUp ? 0 : number(given.left);
      return [{ name, title, unit, allowed, only: text(given.only), used, left }];
    })
    .sort((a, b) => place(a.name) - place(b.name));
}

/** How far more is used than is allowed; undefined where it is not. */
export function overshoot({ allowed, used }: Limit): number | undefined {
  const over = allowed === undefined || typeof used !== "number" ? 0 : used - allowed;
  return over > NOISE ? over : undefined;
}

/** A figure of a limit, as people write it. */
export function inUnits(value: Told<number>, unit: Limit["unit"]): string {
  if (unit === "hours") return hoursInWords(value);
  if (value === null) return "cannot be read";
  if (unit === "usd") return usd(value);
  if (unit === "usd_per_hour") return value === undefined ? usd(value) : `${usd(value)}/h`;
  return count(value);
}

/** Why a limit will refuse something, or may. */
export interface Refusal {
  readonly limit: string;
  readonly why: string;
  readonly isSure: boolean;
}

/** As the server counts: a rent carries whole hours, and Lium removes some minutes late. */
const LATE_HOURS = 0.1;
const NOISE = 1e-6;
const CENT_TOLERANCE_USD = 0.005;
const LIFE_TOLERANCE_HOURS = 0.01;

/** The limits of an answer, by which to foresee. Undefined where they refuse nothing: none is set, or they only note. */
export interface Bounds {
  readonly of: (name: string) => Limit | undefined;
  /** Pods that no removal time bounds, where a budget has to bear them. */
  readonly unbounded: readonly string[];
}

export function boundsOf(data: Json | undefined): Bounds | undefined {
  const limits = limitsOf(data);
  if (limits.length === 0 || data?.limits_refuse === false || data?.mode === "shadow") return undefined;
  return {
    of: (name) => limits.find((limit) => limit.name === name),
    unbounded: texts(data?.pods_without_removal_time ?? data?.unbounded),
  };
}

export interface RentWish {
  /** Undefined before it is known. */
  readonly pricePerHourUsd: number | undefined;
  readonly hours: number;
  readonly gpuType: string | undefined;
  readonly country: string | undefined;
}

/** What the limits will refuse of a rent of one pod. */
export function againstRent(bounds: Bounds, wish: RentWish, now: number): readonly Refusal[] {
  const found = new Findings(bounds);
  const whole = Math.max(1, Math.ceil(wish.hours));
  found.of("max_hours", ({ allowed }) =>
    allowed !== undefined && whole > allowed
      ? `at most ${hoursInWords(allowed)}, and this is for ${hoursInWords(whole)}${whole === wish.hours ? "" : " (Lium takes whole hours)"}.`
      : undefined,
  );
  found.price(wish.pricePerHourUsd);
  found.of("max_pods", ({ allowed, used }) =>
    allowed !== undefined && typeof used === "number" && used + 1 > allowed
      ? `at most ${count(allowed)}, and ${count(used)} ${used === 1 ? "is" : "are"} there.`
      : undefined,
  );
  found.burn(wish.pricePerHourUsd);
  found.budget(wish.pricePerHourUsd, whole, now);
  found.types(wish.gpuType);
  found.of("allow_countries", ({ only }) =>
    only === undefined || namesOf(only).includes(wish.country?.toLowerCase() ?? "")
      ? undefined
      : `only ${only}, and this node is in ${wish.country ?? "a country that Lium does not say"}.`,
  );
  found.maybe(
    "allow_templates",
    () => "only some are allowed; whether the one that Lium proposes is among them, the server says.",
  );
  return found.all;
}

export interface Life {
  readonly pricePerHourUsd: number | undefined;
  /** Undefined where nobody says since when. */
  readonly livedHours: number | undefined;
  /** Until its removal, as it is set now; undefined where none is set, null where that cannot be read. */
  readonly leftHours: Told<number>;
  readonly name: string | undefined;
}

/** What the limits will refuse of a removal in so many hours; undefined takes the removal off. */
export function againstLife(bounds: Bounds, life: Life, wanted: number | undefined, now: number): readonly Refusal[] {
  const { leftHours, livedHours, pricePerHourUsd } = life;
  const isSet = typeof leftHours === "number";
  // What ends a pod earlier is never refused; of what cannot be read nobody knows whether it is earlier.
  if (leftHours === null || (wanted !== undefined && isSet && wanted <= leftHours)) return [];
  const isLonger = wanted === undefined || isSet;
  const found = new Findings(bounds);
  found.of("max_hours", ({ allowed }) => {
    if (allowed === undefined) return undefined;
    if (livedHours === undefined && isLonger)
      return `at most ${hoursInWords(allowed)}, and Lium does not say since when it lives.`;
    const lived = livedHours ?? 0;
    if (wanted !== undefined && lived + wanted <= allowed + LIFE_TOLERANCE_HOURS) return undefined;
    return `at most ${hoursInWords(allowed)} in all: ${hoursInWords(Math.max(0, allowed - lived))} from now.`;
  });
  if (isLonger) {
    found.price(pricePerHourUsd);
    found.burn(0);
  }
  if (wanted === undefined) found.of("budget_usd", () => "without a removal time what it costs is not bounded.");
  else found.budgetOfLife(life, wanted, now);
  return found.all;
}

class Findings {
  readonly all: Refusal[] = [];
  readonly #bounds: Bounds;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  of(name: string, why: (limit: Limit) => string | undefined, isSure = true): void {
    const limit = this.#bounds.of(name);
    const said = limit === undefined ? undefined : why(limit);
    if (limit !== undefined && said !== undefined) this.all.push({ limit: limit.title, why: said, isSure });
  }

  maybe(name: string, why: (limit: Limit) => string | undefined): void {
    this.of(name, why, false);
  }

  price(perHourUsd: number | undefined): void {
    this.of("max_price_per_hour_usd", ({ allowed }) =>
      allowed !== undefined && perHourUsd !== undefined && perHourUsd > allowed + NOISE
        ? `at most ${price(allowed)} an hour, and this costs ${price(perHourUsd)}.`
        : undefined,
    );
  }

  /** What all pods burn together, with so much more. */
  burn(moreUsd: number | undefined): void {
    this.of("max_burn_per_hour_usd", ({ allowed, used }) =>
      allowed !== undefined && typeof used === "number" && moreUsd !== undefined && used + moreUsd > allowed + NOISE
        ? `at most ${price(allowed)} an hour, and it would be ${price(used + moreUsd)}.`
        : undefined,
    );
  }

  budget(perHourUsd: number | undefined, hours: number, now: number): void {
    if (this.#isBeforeBudget(now) || this.#isUnbounded(this.#bounds.unbounded)) return;
    this.of("budget_usd", ({ allowed, used }) => {
      if (allowed === undefined || typeof used !== "number" || perHourUsd === undefined) return undefined;
      return costsMore(perHourUsd * (hours + LATE_HOURS), allowed - used);
    });
    this.#notKnown();
  }

  /** What a pod is already committed to is a part of what is used. */
  budgetOfLife({ name, leftHours, pricePerHourUsd }: Life, hours: number, now: number): void {
    const others = this.#bounds.unbounded.filter((other) => other !== name);
    if (this.#isBeforeBudget(now) || this.#isUnbounded(others)) return;
    this.of("budget_usd", ({ allowed, used }) => {
      if (allowed === undefined || typeof used !== "number" || pricePerHourUsd === undefined) return undefined;
      const own = typeof leftHours === "number" ? pricePerHourUsd * (leftHours + LATE_HOURS) : 0;
      return costsMore(pricePerHourUsd * (hours + LATE_HOURS), allowed - used + own);
    });
    this.#notKnown();
  }

  types(gpuType: string | undefined): void {
    const plain = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "");
    // How people name GPUs the server knows better: what may be meant is left to it.
    this.maybe("allow_gpu_types", ({ only }) =>
      only === undefined || namesOf(only).some((name) => plain(gpuType ?? "").includes(plain(name)))
        ? undefined
        : `only ${only}, and this is ${gpuType ?? "a GPU that Lium does not name"}.`,
    );
  }

  #isBeforeBudget(now: number): boolean {
    const before = this.all.length;
    this.of("budget_since", ({ only }) =>
      only !== undefined && only > new Date(now).toISOString().slice(0, 10)
        ? `${only}. Before that day nothing is rented.`
        : undefined,
    );
    return this.all.length > before;
  }

  #isUnbounded(pods: readonly string[]): boolean {
    if (pods.length === 0) return false;
    const more = pods.length > 1 ? ` and ${count(pods.length - 1)} more` : "";
    this.of(
      "budget_usd",
      () => `${pods[0]}${more} has no removal time, so what is spent is not bounded. Set one first.`,
    );
    return true;
  }

  #notKnown(): void {
    this.maybe("budget_usd", ({ used }) =>
      typeof used === "number" ? undefined : "how much of it is left is not known.",
    );
  }
}

function costsMore(costUsd: number, leftUsd: number): string | undefined {
  return costUsd > leftUsd + CENT_TOLERANCE_USD
    ? `${usd(Math.max(0, leftUsd))} is left, and this would cost up to ${usd(costUsd)}.`
    : undefined;
}

function namesOf(only: string): readonly string[] {
  return only.split(",").map((name) => name.trim().toLowerCase());
}
