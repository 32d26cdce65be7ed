import { describe, expect, test } from "vitest";
import { aligned, forecast, lastsInWords } from "../src/views/money/forecast";
import { podsOf } from "../src/views/pods/pod_readings";

const NOW = Date.UTC(2026, 10, 29, 12);
const HOUR = 3_600_000;
const at = (hours: number): string => new Date(NOW + hours * HOUR).toISOString();

function ahead(balance: number, ...pods: Record<string, unknown>[]) {
  return forecast(
    balance,
    podsOf({ pods: pods.map((pod, i) => ({ pod_id: `p${i}`, status: "RUNNING", billing: true, ...pod })) }),
    NOW,
  );
}

describe("the balance from now on", () => {
  test("runs out where a pod runs on", () => {
    const seen = ahead(10, { price_per_hour_usd: 2 });
    expect(seen.endsAt).toBe(NOW + 5 * HOUR);
    expect(seen.endless).toBe(1);
    expect(seen.leftUsd).toBeUndefined();
    expect(seen.runningOn).toBeUndefined();
    expect(seen.withRemovals).toEqual([
      { x: NOW, y: 10 },
      { x: NOW + 5 * HOUR, y: 0 },
    ]);
  });

  test("bends where removals are set, and ends with what is left", () => {
    const seen = ahead(10, { price_per_hour_usd: 2, removal_at: at(1) }, { price_per_hour_usd: 1, removal_at: at(3) });
    expect(seen.endsAt).toBeUndefined();
    expect(seen.leftUsd).toBe(5);
    expect(seen.lastRemovalAt).toBe(NOW + 3 * HOUR);
    expect(seen.withRemovals.slice(0, 3)).toEqual([
      { x: NOW, y: 10 },
      { x: NOW + HOUR, y: 7 },
      { x: NOW + 3 * HOUR, y: 5 },
    ]);
    expect(seen.runningOn?.at(-1)).toEqual({ x: NOW + (10 / 3) * HOUR, y: 0 });
  });

  test("lasts longer with a removal, and ends all the same", () => {
    const seen = ahead(10, { price_per_hour_usd: 4, removal_at: at(2) }, { price_per_hour_usd: 1 });
    expect(seen.endsAt).toBe(NOW + 2 * HOUR);
    const longer = ahead(20, { price_per_hour_usd: 4, removal_at: at(2) }, { price_per_hour_usd: 1 });
    expect(longer.endsAt).toBe(NOW + 12 * HOUR);
  });

  test("a removal that is due counts as now", () => {
    expect(ahead(10, { price_per_hour_usd: 4, removal_at: at(-2) }).leftUsd).toBe(10);
  });

  test("an unknown price is counted, and is not zero", () => {
    const seen = ahead(
      10,
      { price_per_hour_usd: null },
      { price_per_hour_usd: "free" },
      { price_per_hour_usd: 1, removal_at: at(1) },
    );
    expect(seen.unpriced).toBe(2);
    expect(seen.endless).toBe(2);
    expect(seen.leftUsd).toBeUndefined();
  });

  test("what starts counts from now, since it soon bills", () => {
    const starting = { status: "PENDING", billing: false, price_per_hour_usd: 1 };
    const seen = ahead(10, { price_per_hour_usd: 1, removal_at: at(2) }, { ...starting, removal_hours_after_boot: 4 });
    expect(seen.starting).toBe(1);
    expect(seen.burnUsd).toBe(2);
    expect(seen.leftUsd).toBe(4);
    expect(seen.runsOutAt).toBe(NOW + 5 * HOUR);
    expect(lastsInWords(seen, NOW)).toBe("lasts past all removals; 5 h 00 min if all run on");
    expect(ahead(10, { ...starting, price_per_hour_usd: null }).unpriced).toBe(1);
  });

  test("how long it lasts is said with the removals and without", () => {
    const some = ahead(20, { price_per_hour_usd: 4, removal_at: at(2) }, { price_per_hour_usd: 1 });
    expect(lastsInWords(some, NOW)).toBe("lasts 12 h 00 min with the removals set; 4 h 00 min if all run on");
    expect(lastsInWords(ahead(10, { price_per_hour_usd: 1 }), NOW)).toBe("lasts 10 h 00 min");
    expect(lastsInWords(ahead(10), NOW)).toBeUndefined();
  });

  test("what does not bill burns nothing", () => {
    const seen = ahead(10, { price_per_hour_usd: 4, billing: false });
    expect(seen.burnUsd).toBe(0);
    expect(seen.withRemovals).toEqual([{ x: NOW, y: 10 }]);
  });

  test("a balance below zero is at its end, and nothing is drawn past a month", () => {
    expect(ahead(-1, { price_per_hour_usd: 1 }).endsAt).toBe(NOW);
    const slow = ahead(1000, { price_per_hour_usd: 0.001 });
    expect(slow.withRemovals.at(-1)?.x).toBe(NOW + 720 * HOUR);
    expect(slow.withRemovals.at(-1)?.y).toBeCloseTo(999.28);
  });

  test("lines are compared at the same moments", () => {
    const [a, b] = aligned([
      [
        { x: 0, y: 10 },
        { x: 10, y: 0 },
      ],
      [
        { x: 0, y: 10 },
        { x: 4, y: 8 },
        { x: 20, y: 0 },
      ],
    ]);
    expect(a?.map(({ x }) => x)).toEqual([0, 4, 10]);
    expect(b?.find(({ x }) => x === 10)?.y).toBe(5);
  });
});
