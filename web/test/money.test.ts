import { describe, expect, test } from "vitest";
import { limitsOf } from "../src/data/limits";
import { chargesOf, daysBetween, partsOf, unfitUsd } from "../src/views/money/money_readings";

describe("spending", () => {
  test("days go from the first to the last, and what are none is not drawn", () => {
    expect(daysBetween("2026-02-27", "2026-03-01")).toEqual(["2026-02-27", "2026-02-28", "2026-03-01"]);
    expect(daysBetween("soon", "2026-03-01")).toBeUndefined();
    expect(daysBetween("2026-03-02", "2026-03-01")).toBeUndefined();
    expect(daysBetween("0001-01-01", "2026-03-01")).toBeUndefined();
  });

  const period = { start_day: "2026-03-01", end_day: "2026-03-03" };

  test("days are cut into the dearest pods and others", () => {
    const charges = chargesOf({
      ...period,
      days: [day(1, 11), day(3, 4)],
      pods: [pod("x", 6, day(1, 6)), pod("y", 7, day(1, 3), day(3, 4)), pod("z", 2, day(1, 2))],
    });
    expect(partsOf(charges, 2)).toEqual([
      { label: "y", values: [3, 0, 4] },
      { label: "x", values: [6, 0, 0] },
      { label: "Other pods", values: [2, 0, 0] },
    ]);
  });

  test("what was given back stands on its day, and all of it adds up", () => {
    const charges = chargesOf({
      ...period,
      total_usd: 33.5,
      days: [day(1, 41), day(2, -5), day(3, -2.5)],
      pods: [pod("x", 15, day(1, 20), day(2, -5)), pod("z", 21, day(1, 21)), pod("y", -2.5, day(3, -2.5))],
    });
    expect(partsOf(charges, 5)).toEqual([
      { label: "x", values: [20, -5, 0] },
      { label: "z", values: [21, 0, 0] },
      { label: "y", values: [0, 0, -2.5] },
    ]);
    expect(unfitUsd(charges)).toBeUndefined();
    expect(unfitUsd({ ...charges, totalUsd: 41 })).toBe(33.5);
    expect(unfitUsd({ ...charges, totalUsd: 30, beyondUsd: -3.5 })).toBeUndefined();
    const drawn = partsOf(charges, 1) ?? [];
    expect(period && drawn.map(({ values }) => values)).toEqual([
      [20, -5, 0],
      [21, 0, -2.5],
    ]);
  });

  test("where days are not told, nothing is drawn as zero", () => {
    expect(partsOf(chargesOf({ ...period, total_usd: 5, pods: [pod("x", 5)] }), 5)).toBeUndefined();
    expect(partsOf(chargesOf({ days: [day(1, 5)] }), 5)).toBeUndefined();
    expect(partsOf(chargesOf({ ...period, days: [null, { day: "2026-03-01", total_usd: "x" }] }), 5)).toEqual([]);
  });

  test("rows of one day, and of one pod, add up", () => {
    const charges = chargesOf({
      ...period,
      days: [day(1, 4), day(1, 6), day(2, 1)],
      pods: [pod("x", 6, day(1, 2), day(1, 4)), pod("y", 2, day(1, 2)), pod("x", 3, day(1, 2), day(2, 1))],
    });
    expect(charges.days?.get("2026-03-01")).toBe(10);
    expect(charges.pods.map(({ key, totalUsd }) => [key, totalUsd])).toEqual([
      ["x", 9],
      ["y", 2],
    ]);
    expect(partsOf(charges, 2)).toEqual([
      { label: "x", values: [8, 1, 0] },
      { label: "y", values: [2, 0, 0] },
    ]);
  });

  test("of rows that add up, one that is not known leaves the sum unknown", () => {
    const charges = chargesOf({ ...period, pods: [pod("x", 6), { pod_id: "x", total_usd: "much" }, {}, {}] });
    expect(charges.pods.map(({ totalUsd }) => totalUsd)).toEqual([undefined, undefined, undefined]);
    expect(new Set(charges.pods.map(({ key }) => key)).size).toBe(3);
  });

  test("charges that are no figures are not known", () => {
    const charges = chargesOf({
      total_usd: "much",
      pods: [{ pod_id: "a", total_usd: null }, 5, null, { total_usd: "2.5" }],
    });
    expect(charges.totalUsd).toBeUndefined();
    expect(charges.pods.map(({ totalUsd }) => totalUsd)).toEqual([undefined, 2.5]);
  });
});

function day(number: number, total: number) {
  return { day: `2026-03-0${number}`, total_usd: total };
}

function pod(name: string, total: number, ...days: unknown[]) {
  return { pod_id: name, name, total_usd: total, ...(days.length === 0 ? {} : { days }) };
}

test("limits stand in the order in which people ask for them, also those that nobody knows", () => {
  const limits = limitsOf({
    limits: [
      { limit: "max_cats", allowed: 3 },
      { limit: "max_pods", allowed: 2, used: 1, left: 1 },
      { limit: "budget_usd", allowed: "x" },
      null,
      {},
    ],
  });
  expect(limits.map(({ title }) => title)).toEqual(["Budget", "Pods at once", "max cats"]);
  expect(limits[0]?.allowed).toBeUndefined();
});
