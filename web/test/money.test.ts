import { describe, expect, test } from "vitest";
import { chargesOf, dayOf, daySpec, lastDays, limitsOf, partsOf } from "../src/views/money/money_readings";

const day = (name: string, data?: Record<string, unknown>) => ({
  day: name,
  charges: data === undefined ? undefined : chargesOf(data),
  failed: false,
});

describe("spending", () => {
  test("days are UTC days, and those long past are read once", () => {
    const at = Date.UTC(2026, 2, 1, 0, 30);
    expect(dayOf(at)).toBe("2026-03-01");
    expect(lastDays(at, 3)).toEqual(["2026-02-27", "2026-02-28", "2026-03-01"]);
    expect(daySpec("2026-02-27", "2026-03-01").everySeconds).toBeUndefined();
    expect(daySpec("2026-02-28", "2026-03-01").everySeconds).toBe(1800);
    expect(daySpec("2026-03-01", "2026-03-01").everySeconds).toBe(300);
  });

  test("days are cut into the dearest pods, others, and what is of no pod", () => {
    const parts = partsOf(
      [
        day("a", { total_usd: 12, beyond_pods_usd: 1, pods: [pod("x", 6), pod("y", 3), pod("z", 2)] }),
        day("b"),
        day("c", { total_usd: 4, pods: [pod("y", 4)] }),
      ],
      2,
    );
    expect(parts).toEqual([
      { label: "y", values: [3, undefined, 4] },
      { label: "Other pods", values: [8, undefined, 0] },
      { label: "Not of a pod", values: [1, undefined, 0] },
    ]);
  });

  test("charges that are no figures are not known", () => {
    const charges = chargesOf({
      total_usd: "much",
      pods: [{ pod_id: "a", total_usd: null }, 5, null, { total_usd: "2.5" }],
    });
    expect(charges.totalUsd).toBeUndefined();
    expect(charges.pods.map(({ totalUsd }) => totalUsd)).toEqual([undefined, 2.5]);
    expect(partsOf([day("a", { pods: [{ pod_id: "a", total_usd: null }] })], 6)).toEqual([]);
  });
});

function pod(name: string, total: number) {
  return { pod_id: name, name, total_usd: total };
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
