import { describe, expect, test } from "vitest";
import { keyOf } from "../src/data/readings";
import {
  againstUsual,
  countsOf,
  goneOf,
  historiesOf,
  offersOf,
  offersSpec,
  quoteOf,
  typesOf,
  unreadGone,
  wantedOf,
} from "../src/views/market/market_readings";

describe("offers", () => {
  test("what is no price is none, and what has no id cannot be rented", () => {
    const offers = offersOf({
      offers: [
        { executor_id: "a", price_per_hour_usd: "1.5", vram_gb: -3, often_fails_to_start: true, maintenance: "<b>" },
        { executor_id: "b", price_per_hour_usd: "free", gpu_type: {} },
        { executor_id: "a", price_per_hour_usd: 9 },
        { price_per_hour_usd: 1 },
        null,
        "node",
      ],
    });
    expect(offers.map(({ id, pricePerHourUsd }) => [id, pricePerHourUsd])).toEqual([
      ["a", 1.5],
      ["b", undefined],
    ]);
    expect(offers[0]?.vramGb).toBeUndefined();
    expect(offers[0]?.flaws).toEqual(["Pods often fail to start on it", "Maintenance: <b>"]);
  });

  test.each([
    ["1-4", [1, 2, 3, 4]],
    ["8", [8]],
    ["4-1", []],
    ["1-9999", []],
    ["many", []],
    [undefined, []],
  ])("a node that rents %s", (rentable, counts) => {
    expect(countsOf({ ...offersOf({ offers: [{ executor_id: "a" }] })[0], rentable } as never)).toEqual(counts);
  });

  test("of the arguments of a call, those count that there are fields for", () => {
    const wishes = wantedOf({
      gpu_type: "H100",
      gpu_count: 2,
      nvlink: true,
      limit: 5,
      cursor: "20",
      country: "",
      evil: {},
    });
    expect(wishes).toEqual({ gpu_type: "H100", gpu_count: 2, nvlink: true });
    expect(offersSpec(wishes, "50").args).toEqual({ ...wishes, limit: 50, cursor: "50" });
    expect(keyOf(offersSpec(wishes, ""))).not.toBe(keyOf(offersSpec(wishes, "50")));
  });
});

describe("prices", () => {
  const past = {
    lowest_last_week: { min_usd: 1, median_usd: 2, max_usd: 3, samples: 40 },
    seen_since: "2026-11-01T00:00:00Z",
  };

  test("stand against what was usual, where that is known", () => {
    const [cheap, unknown, unpriced] = typesOf({
      gpu_types: [
        { gpu_type: "H100", min_usd: 1.5, past },
        { gpu_type: "A100", min_usd: 1 },
        { gpu_type: "L4", past },
      ],
    });
    expect(cheap && againstUsual(cheap)).toBe(0.75);
    expect(unknown && againstUsual(unknown)).toBeUndefined();
    expect(unpriced && againstUsual(unpriced)).toBeUndefined();
  });

  test("earlier ones stand in time, with gaps where there is no figure", () => {
    const history = {
      at: ["2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z", "soon"],
      lowest_usd: [2, "1", 5],
      median_usd: [3],
    };
    const found = historiesOf({
      gpu_types: [{ gpu_type: "H100", past: { history } }, { gpu_type: "L4", past: {} }, null],
    });
    expect([...found.keys()]).toEqual(["H100"]);
    expect(found.get("H100")?.lowest.map(({ y }) => y)).toEqual([1, 2]);
    expect(found.get("H100")?.median.map(({ y }) => y)).toEqual([undefined, 3]);
  });
});

describe("types that are gone", () => {
  const lowest = { min_usd: 1, median_usd: 2, max_usd: 3, samples: 40 };

  test("stand with when they were last seen, and what they cost", () => {
    const [one, ...others] = goneOf({
      gone: [
        { gpu_type: "B300", last_seen: "2026-11-29T10:00:00Z", past: { lowest_last_week: lowest } },
        { gpu_type: "L4", last_seen: "soon" },
        { gpu_type: "L4" },
        { last_seen: "2026-11-29T10:00:00Z" },
        null,
      ],
    });
    expect(one).toMatchObject({
      name: "B300",
      lastSeen: Date.UTC(2026, 10, 29, 10),
      lastWeek: { minUsd: 1, maxUsd: 3 },
    });
    expect(others.map(({ key, lastSeen }) => [key, lastSeen])).toEqual([
      ["L4", null],
      ["L4 (2)", undefined],
    ]);
    expect(unreadGone({ gone: [null, {}, { gpu_type: "L4" }] })).toBe(2);
  });

  test("two rows of one type have their samples together", () => {
    const row = (at: string, usd: number) => ({
      gpu_type: "H100",
      past: { history: { at: [at], lowest_usd: [usd], median_usd: [usd] } },
    });
    const found = historiesOf({
      gpu_types: [row("2026-11-02T00:00:00Z", 2), row("2026-11-01T00:00:00Z", 1)],
      gone: [{ ...row("2026-11-01T00:00:00Z", 5), gpu_type: "B300" }],
    });
    expect(found.get("H100")?.lowest.map(({ y }) => y)).toEqual([1, 2]);
    expect(found.get("B300")?.lowest.map(({ y }) => y)).toEqual([5]);
  });
});

test("a quote of which nothing is known has no total, and not a total of zero", () => {
  const quote = quoteOf({
    total_usd: "soon",
    lines: [{ item: "compute", quantity: 2, unit: "GPU-hour" }, null],
    warnings: [1, null, "x"],
  });
  expect(quote.totalUsd).toBeUndefined();
  expect(quote.lines).toEqual([{ item: "compute", made: "2 GPU-hour", usd: undefined }]);
  expect(quote.warnings).toEqual(["1", "x"]);
});
