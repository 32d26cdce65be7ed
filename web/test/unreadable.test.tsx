// What is told and cannot be read is unknown, and not none: dates above all, and numbers whose absence says something.
import { expect, test } from "vitest";
import { keyMaker, moment, number, told } from "../src/data/shapes";
import { ago, clock, fullTime, hours, until } from "../src/format";
import { type View, view } from "../src/navigation";
import { button, type FakeHost, fakeHost, settle, shown, showPage, turnTime } from "./fakes";

turnTime();

async function page(answers: FakeHost["answers"], at: View = "pods"): Promise<FakeHost> {
  const host = fakeHost(answers);
  view.value = at;
  await showPage(host);
  return host;
}

const POD = {
  pod_id: "id-1",
  name: "train-a",
  status: "RUNNING",
  price_per_hour_usd: 2.5,
  billing: true,
  cost_estimate_usd: 4.2,
};
const UNREADABLE = ["soon", 5, {}, "", "2026-13-45T00:00:00Z", "7", "2026-11-29", "2026-11-29T16:00:00"];

test("what is there and cannot be read is null, and what is not there is undefined", () => {
  expect(told(undefined, moment)).toBeUndefined();
  expect(told(null, moment)).toBeUndefined();
  for (const value of UNREADABLE) expect(told(value, moment), String(value)).toBeNull();
  expect(told("2026-11-29T16:00:00Z", moment)).toBe(Date.UTC(2026, 10, 29, 16));
  expect(told("2026-11-29T16:00:00.123456+01:00", moment)).toBe(Date.UTC(2026, 10, 29, 15, 0, 0, 123));
  expect(told("many", number)).toBeNull();
  const now = Date.now();
  expect([clock(null, now), ago(null, now), hours(null), fullTime(null)]).toEqual([
    "cannot be read",
    "cannot be read",
    "cannot be read",
    "",
  ]);
  expect(until(null, now)).toBe("until a time that cannot be read");
});

test("each row has a key of its own, whatever its names", () => {
  const keyOf = keyMaker();
  const keys = ["a", "a (2)", "a", undefined, "a", undefined].map(keyOf);
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys[0]).toBe("a");
});

test.each(UNREADABLE)("a removal at %j may be one", async (removal_at) => {
  const pods = [{ ...POD, removal_at }];
  const balance = { balance_usd: 10, burn_per_hour_usd: 2.5 };
  await page({ list_pods: { pods, total: 1, burn_per_hour_usd: 2.5 }, get_balance: balance });
  expect(shown()).toContain("Time cannot be read");
  expect(shown()).toContain("Next removal–1 time cannot be read");
  expect(shown()).not.toMatch(/No time set|bills until|none has a time/);
  button("Change removal of train-a").click();
  await settle();
  expect(shown()).toContain("Its removal time cannot be read: it may have one.");
  expect(shown()).not.toContain("It has no removal time");
  expect(button("Take the time off")).toBeDefined();
  button("Cancel").click();
  view.value = "money";
  await settle(1);
  expect(shown()).toContain("1 pod with a removal time that cannot be read: drawn as running on.");
  expect(shown()).not.toContain("without a removal time");
});

test("beside one that can be read, the next removal may be sooner", async () => {
  const pods = [
    { ...POD, removal_at: "soon" },
    { ...POD, pod_id: "b", removal_at: "2026-11-29T20:30:00Z" },
  ];
  await page({ list_pods: { pods, total: 2, burn_per_hour_usd: 5 } });
  expect(shown()).toContain("Next removal4 h 29 minor sooner: 1 time cannot be read");
});

test("a removal after so long that cannot be read, and an idle time that cannot", async () => {
  const starting = { ...POD, status: "PENDING", removal_hours_after_boot: "x" };
  const idle = { ...POD, pod_id: "b", idle_minutes: "x" };
  await page({ list_pods: { pods: [starting, idle], total: 2, burn_per_hour_usd: 5 } });
  expect(shown()).toContain("Time cannot be read");
  expect(shown()).toContain("Once idle for some time");
  expect(shown()).not.toContain("No time set");
});

test("times of backups, jobs, events and orders", async () => {
  const order = {
    name: "later",
    status: "waiting",
    hours: "x",
    max_usd_per_hour: {},
    max_total_usd: "y",
    expires_at: 5,
  };
  await page({
    list_pods: { pods: [POD], total: 1, burn_per_hour_usd: 2.5, orders: [order, order] },
    get_pod: {
      outcome: "done",
      pod: { ...POD, created_at: "soon", idle_for_minutes: "x", last_events: [{ at: "soon", event: "BOOT" }] },
    },
    get_job: {
      jobs: [
        { job: "a", status: "failed", started_at: "2026-11-29T15:00:00Z", finished_at: "x", exit_code: "y" },
        { job: "a", status: "running", started_at: "x" },
      ],
    },
    list_backups: {
      backups: [{ backup_id: "b", pod_id: "id-1", status: "COMPLETED", completed_at: "x", kept_until: "x" }],
    },
  });
  button("Details of train-a").click();
  await settle(1);
  for (const words of [
    "Begancannot be read",
    "Idle forcannot be read",
    "Kept until a time that cannot be read",
    "exit cannot be read",
    "its time cannot be read",
    "its hours cannot be read, its ceiling for an hour cannot be read, its ceiling in all cannot be read",
    "until a time that cannot be read",
    "Last eventscannot be readBOOT",
  ])
    expect(shown()).toContain(words);
  expect(shown()).not.toMatch(/for 1 h|undefined|null/);
  expect(shown().split("its time cannot be read")).toHaveLength(3);
  expect(shown().split("its hours cannot be read")).toHaveLength(3);
});

test("times and sums of money", async () => {
  const host = fakeHost({
    get_balance: {
      balance_usd: 5,
      burn_per_hour_usd: 1,
      unpriced_pods: "some",
      limits: [{ limit: "max_pods", allowed: 2, used: "x" }],
    },
    list_pods: { pods: [], total: 0, burn_per_hour_usd: 0 },
    get_spending: {
      start_day: "2026-11-23",
      end_day: "2026-11-29",
      days: [{ day: "2026-11-29", total_usd: 1 }],
      pods: [{ pod_id: "a", name: "a", total_usd: 1, created_at: "soon", removed_at: "soon" }],
      beyond_pods_usd: "x",
    },
  });
  host.read = (uri) =>
    Promise.resolve(uri === "lium://rents" ? { rents: [{ name: "r", closed_at: "x", hours: "y" }] } : undefined);
  view.value = "money";
  await showPage(host);
  expect(shown()).toContain("at least: some pods may be unpriced");
  expect(shown()).toContain("How much of it is used cannot be read.");
  expect(shown()).toContain("More was charged for no pod: how much cannot be read.");
  expect(shown()).toContain("Removed");
  expect(shown().split("cannot be read").length).toBeGreaterThanOrEqual(7);
});

test("how old prices are, and since when they are kept", async () => {
  const past = { seen_since: "soon", lowest_last_day: { median_usd: 1 } };
  const types = { gpu_types: [{ gpu_type: "H100", min_usd: 1, past }], total: 1, read_seconds_ago: "x" };
  await page({ get_gpu_prices: types, list_gpus: { offers: [], total: 0 } }, "market");
  expect(shown()).toContain("per GPU and hour, read at a time that cannot be read");
  button("Details of H100").click();
  await settle();
  expect(shown()).toContain("Seen sincecannot be read");
});
