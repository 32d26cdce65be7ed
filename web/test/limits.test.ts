import { describe, expect, test } from "vitest";
import { againstLife, againstRent, boundsOf, type Life, type RentWish } from "../src/data/limits";
import type { Json } from "../src/data/shapes";

const NOW = Date.UTC(2026, 10, 29, 16);
const RENT: RentWish = { pricePerHourUsd: 2, hours: 6, gpuType: "H100 PCIe", country: "US" };
const LIFE: Life = { pricePerHourUsd: 2, livedHours: 4, leftHours: 2, name: "train-a" };

function rent(limit: Json, wish: Partial<RentWish> = {}, more: Json = {}): readonly string[] {
  const bounds = boundsOf({ limits: [limit], ...more });
  return bounds === undefined ? [] : againstRent(bounds, { ...RENT, ...wish }, NOW).map(inWords);
}

function life(limit: Json, wanted: number | undefined, of: Partial<Life> = {}, more: Json = {}): readonly string[] {
  const bounds = boundsOf({ limits: [limit], ...more });
  return bounds === undefined ? [] : againstLife(bounds, { ...LIFE, ...of }, wanted, NOW).map(inWords);
}

function inWords({ limit, why, isSure }: { limit: string; why: string; isSure: boolean }): string {
  return `${isSure ? "" : "perhaps "}${limit}: ${why}`;
}

describe("a rent", () => {
  test.each<[Json, Partial<RentWish>, string | undefined]>([
    [{ limit: "max_hours", allowed: 6 }, {}, undefined],
    [{ limit: "max_hours", allowed: 5 }, {}, "Life of a pod: at most 5 h, and this is for 6 h."],
    [
      { limit: "max_hours", allowed: 5.5 },
      { hours: 5.2 },
      "Life of a pod: at most 5 h 30 min, and this is for 6 h (Lium takes whole hours).",
    ],
    [{ limit: "max_price_per_hour_usd", allowed: 2 }, {}, undefined],
    [
      { limit: "max_price_per_hour_usd", allowed: 1.5 },
      {},
      "Price of one pod: at most $1.500 an hour, and this costs $2.000.",
    ],
    [{ limit: "max_pods", allowed: 2, used: 1 }, {}, undefined],
    [{ limit: "max_pods", allowed: 2, used: 2 }, {}, "Pods at once: at most 2, and 2 are there."],
    [{ limit: "max_pods", allowed: 2 }, {}, undefined],
    [{ limit: "max_burn_per_hour_usd", allowed: 5, used: 3 }, {}, undefined],
    [
      { limit: "max_burn_per_hour_usd", allowed: 5, used: 3.5 },
      {},
      "All pods together: at most $5.000 an hour, and it would be $5.500.",
    ],
    [{ limit: "budget_usd", allowed: 20, used: 7.8 }, {}, undefined],
    [{ limit: "budget_usd", allowed: 20, used: 8 }, {}, "Budget: $12.00 is left, and this would cost up to $12.20."],
    [{ limit: "budget_usd", allowed: 20, used: 30 }, {}, "Budget: $0.00 is left, and this would cost up to $12.20."],
    [{ limit: "budget_usd", allowed: 20 }, {}, "perhaps Budget: how much of it is left is not known."],
    [{ limit: "budget_usd", allowed: 20, used: "x" }, {}, "perhaps Budget: how much of it is left is not known."],
    [{ limit: "allow_countries", only: "DE, us" }, {}, undefined],
    [{ limit: "allow_countries", only: "DE, FR" }, {}, "Countries: only DE, FR, and this node is in US."],
    [
      { limit: "allow_countries", only: "DE" },
      { country: undefined },
      "Countries: only DE, and this node is in a country that Lium does not say.",
    ],
    [{ limit: "allow_gpu_types", only: "A100, h100" }, {}, undefined],
    [{ limit: "allow_gpu_types", only: "A100" }, {}, "perhaps GPU types: only A100, and this is H100 PCIe."],
    [
      { limit: "budget_since", only: "2026-12-01" },
      {},
      "The budget counts from: 2026-12-01. Before that day nothing is rented.",
    ],
    [{ limit: "budget_since", only: "2026-11-29" }, {}, undefined],
    [{ limit: "max_cats", allowed: 0, used: 1 }, {}, undefined],
    [{ limit: "max_hours", allowed: "x" }, {}, undefined],
  ])("held against %j with %j", (limit, wish, said) => {
    expect(rent(limit, wish)).toEqual(said === undefined ? [] : [said]);
  });

  test("a pod without a removal time leaves a budget without a bound", () => {
    const budget = { limit: "budget_usd", allowed: 20 };
    expect(rent(budget, {}, { pods_without_removal_time: ["a", "b"] })).toEqual([
      "Budget: a and 1 more has no removal time, so what is spent is not bounded. Set one first.",
    ]);
  });

  test("before its price is known, what depends on it is not said", () => {
    const unknown = { pricePerHourUsd: undefined };
    for (const limit of ["max_price_per_hour_usd", "max_burn_per_hour_usd", "budget_usd"])
      expect(rent({ limit, allowed: 1, used: 1 }, unknown)).toEqual([]);
  });

  test.each([{ limits_refuse: false }, { mode: "shadow" }])("limits that only note refuse nothing: %j", (more) => {
    expect(rent({ limit: "max_hours", allowed: 1 }, {}, more)).toEqual([]);
  });
});

describe("another removal time", () => {
  test.each<[Json, number | undefined, Partial<Life>, string | undefined]>([
    [{ limit: "max_hours", allowed: 10 }, 6, {}, undefined],
    [{ limit: "max_hours", allowed: 10 }, 7, {}, "Life of a pod: at most 10 h in all: 6 h from now."],
    [{ limit: "max_hours", allowed: 1 }, 1, {}, undefined],
    [{ limit: "max_hours", allowed: 10 }, undefined, {}, "Life of a pod: at most 10 h in all: 6 h from now."],
    [
      { limit: "max_hours", allowed: 10 },
      3,
      { livedHours: undefined },
      "Life of a pod: at most 10 h, and Lium does not say since when it lives.",
    ],
    [{ limit: "max_hours", allowed: 10 }, 3, { livedHours: undefined, leftHours: undefined }, undefined],
    [{ limit: "max_hours", allowed: 1 }, 30, { leftHours: null }, undefined],
    [{ limit: "max_price_per_hour_usd", allowed: 1 }, 1, {}, undefined],
    [
      { limit: "max_price_per_hour_usd", allowed: 1 },
      3,
      {},
      "Price of one pod: at most $1.000 an hour, and this costs $2.000.",
    ],
    [{ limit: "max_burn_per_hour_usd", allowed: 5, used: 5 }, 9, {}, undefined],
    [
      { limit: "max_burn_per_hour_usd", allowed: 5, used: 6 },
      9,
      {},
      "All pods together: at most $5.000 an hour, and it would be $6.000.",
    ],
    // 4.2 of what is used is this pod's own until its removal of now.
    [{ limit: "budget_usd", allowed: 20, used: 10 }, 6.9, {}, undefined],
    [
      { limit: "budget_usd", allowed: 20, used: 10 },
      7.5,
      {},
      "Budget: $14.20 is left, and this would cost up to $15.20.",
    ],
    [{ limit: "budget_usd", allowed: 20 }, 9, {}, "perhaps Budget: how much of it is left is not known."],
    [
      { limit: "budget_usd", allowed: 20, used: 10 },
      undefined,
      {},
      "Budget: without a removal time what it costs is not bounded.",
    ],
  ])("held against %j: in %s hours, %j", (limit, wanted, of, said) => {
    expect(life(limit, wanted, of)).toEqual(said === undefined ? [] : [said]);
  });

  test("the pod itself may be the one that leaves a budget without a bound", () => {
    const budget = { limit: "budget_usd", allowed: 20 };
    const of = { leftHours: undefined };
    expect(life(budget, 3, of, { pods_without_removal_time: ["train-a"] })).toEqual([
      "perhaps Budget: how much of it is left is not known.",
    ]);
    expect(life(budget, 3, of, { pods_without_removal_time: ["other", "train-a"] })).toEqual([
      "Budget: other has no removal time, so what is spent is not bounded. Set one first.",
    ]);
  });
});
