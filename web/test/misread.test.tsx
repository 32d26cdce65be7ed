// Answers of the wrong shape: what is no list is no empty list, and what is no answer is no success.
import { describe, expect, test, vi } from "vitest";
import type { Json } from "../src/data/shapes";
import { answerOf } from "../src/host/host";
import { open, type View, view } from "../src/navigation";
import { button, type FakeHost, fakeHost, settle, shown, showPage, turnTime } from "./fakes";

turnTime();

const POD = {
  pod_id: "id-1",
  name: "train-a",
  status: "RUNNING",
  price_per_hour_usd: 2.5,
  billing: true,
  removal_at: "2026-11-29T20:00:00Z",
  cost_estimate_usd: 4.2,
};
const LIST = { pods: [POD], total: 1, burn_per_hour_usd: 2.5 };
const OFFER = { executor_id: "node-1", gpu_type: "H100", price_per_hour_usd: 1.4, price_per_gpu_hour_usd: 1.4 };
const OFFERS = { offers: [OFFER], total: 1 };
const QUOTE = { executor_id: "node-1", gpu_count: 1, hours: 6, price_per_hour_usd: 1.4, total_usd: 8.4, lines: [] };

async function page(answers: FakeHost["answers"], at: View = "pods"): Promise<FakeHost> {
  const host = fakeHost(answers);
  view.value = at;
  await showPage(host);
  return host;
}

async function press(...words: readonly string[]): Promise<void> {
  for (const each of words) {
    button(each).click();
    await settle(1);
  }
}

/** As a host hands it on. */
function raw(structuredContent: unknown) {
  return answerOf({ structuredContent, content: [] });
}

describe("an action whose answer is none of its tool", () => {
  const ACTIONS: readonly (readonly [string, View, readonly string[], readonly unknown[]])[] = [
    [
      "remove_pod",
      "pods",
      ["Remove train-a", "Remove"],
      [
        { outcome: "gone", name: "train-a" },
        { outcome: "done", name: "other", pod_id: "id-2" },
      ],
    ],
    [
      "create_backup",
      "pods",
      ["Back up train-a", "Back up"],
      [{ outcome: "done" }, { outcome: "pending", backup: { backup_id: "b", pod_id: "id-2" } }],
    ],
    [
      "schedule_pod_removal",
      "pods",
      ["Change removal of train-a", "12 h", "Set the time"],
      [
        { pod_id: "id-1", name: "train-a" },
        { pod_id: "id-2", name: "x", removal_at: "2026-11-30T04:00:00Z" },
      ],
    ],
    [
      "cancel_pod_removal",
      "pods",
      ["Change removal of train-a", "Take the time off"],
      [{ pod_id: "id-1", name: "train-a", removal_at: "2026-11-29T20:00:00Z" }],
    ],
    ["rent_pod", "market", ["Rent H100, $1.400 an hour", "Rent it"], [{ outcome: "done" }, { pod: { pod_id: "p" } }]],
  ];
  const cases = ACTIONS.flatMap(([tool, at, words, own]) =>
    [[1, 2], {}, "done", null, ...own].map((answer) => [tool, answer, at, words] as const),
  );
  test.each(cases)("%s answered %j is not known to have taken effect", async (tool, answer, at, words) => {
    const host = await page(
      { list_pods: LIST, list_gpus: OFFERS, quote_rental: QUOTE, get_gpu_prices: {}, [tool]: raw(answer) },
      at,
    );
    await press(...words);
    expect(host.calls.map((call) => call.tool)).toContain(tool);
    expect(shown()).toContain("Whether it took effect is not known");
    expect(shown()).not.toMatch(
      /has begun|is removed|is rented|was asked for|is backed up|will be removed|bills until/,
    );
    expect(host.told[0]).toContain("Whether it took effect is not known");
  });

  test("what failed, as its tool says it, is no success", async () => {
    const failed = { outcome: "failed", name: "train-a", pod_id: "id-1", next: "The backup failed: the pod was kept." };
    const host = await page({ list_pods: LIST, remove_pod: failed });
    await press("Remove train-a", "Remove");
    expect(shown()).toContain("It was not done. The backup failed: the pod was kept.");
    expect(host.told[0]).toContain("It was not done");
  });
});

describe("a list that is none", () => {
  const NONE = [{}, { rows: null }, { rows: "x" }, { rows: { length: 0 } }, [1, 2]];
  const LISTS: readonly (readonly [string, string, View, RegExp])[] = [
    ["list_pods", "pods", "pods", /No pod runs|nothing bills|\$0/],
    ["list_gpus", "offers", "market", /No offer|for rent now/],
    ["get_gpu_prices", "gpu_types", "market", /Nothing is for rent now/],
    ["get_spending", "pods", "money", /No pod was charged|Nothing was charged|\$0/],
  ];
  const cases = LISTS.flatMap(([tool, field, at, empty]) =>
    NONE.map((answer) => [tool, answer, field, at, empty] as const),
  );
  test.each(cases)("%s answered %j could not be read", async (tool, answer, field, at, empty) => {
    const given = Array.isArray(answer) ? answer : "rows" in answer ? { [field]: answer.rows } : answer;
    await page({ [tool]: raw(given) }, at);
    expect(shown()).toContain("This could not be read");
    expect(shown()).toContain(`What came is no answer of ${Array.isArray(given) ? "a tool" : tool}.`);
    expect(shown()).not.toMatch(empty);
  });

  test.each([
    ["list_backups", "backups", /None of this pod/],
    ["get_job", "jobs", /No job was started/],
    ["get_pod_logs", "lines", /has written nothing/],
  ])("of a pod: %s", async (tool, field, empty) => {
    await page({
      list_pods: LIST,
      get_pod: { outcome: "done", pod: POD },
      get_job: { jobs: [] },
      list_backups: { backups: [] },
      get_pod_logs: { lines: [] },
      [tool]: { [field]: "x" },
    });
    await press("Details of train-a");
    expect(shown()).toContain("This could not be read");
    expect(shown()).not.toMatch(empty);
  });

  test("the rents of the ledger, limits, orders and unsettled rents", async () => {
    const host = fakeHost({
      list_pods: { ...LIST, orders: "x", unsettled: 5 },
      get_balance: { balance_usd: 5, burn_per_hour_usd: 0, limits: "x" },
    });
    host.read = (uri) => Promise.resolve(uri === "lium://rents" ? { rents: "x" } : undefined);
    view.value = "money";
    await showPage(host);
    expect(shown()).toContain("What came is no answer of lium://rents.");
    expect(shown()).not.toContain("None are set");
    view.value = "pods";
    await settle(1);
    expect(shown()).toContain("The standing orders could not be read.");
    expect(shown()).toContain("Whether some rents are not settled could not be read.");
  });
});

describe("rows that cannot be read are counted", () => {
  test("pods, and what is summed over them is at least so much", async () => {
    await page({ list_pods: { ...LIST, pods: [POD, null, 7], total: 3 } });
    expect(shown()).toContain("2 rows could not be read.");
    expect(shown()).toContain("at least: 2 pods not read");
    expect(shown()).toContain("$4.20at least: 2 pods not counted");
    view.value = "money";
    await settle(1);
    expect(shown()).toContain("2 pods not read");
  });

  test("no pod that can be read is not no pod", async () => {
    await page({ list_pods: { pods: [null], total: 1, burn_per_hour_usd: 0 } });
    expect(shown()).toContain("No pod could be read");
    expect(shown()).not.toMatch(/No pod runs|Cost so far\$0/);
  });

  test("offers, prices and limits", async () => {
    await page(
      {
        list_gpus: { offers: [OFFER, {}, null], total: 3 },
        get_gpu_prices: { gpu_types: [{ gpu_type: "H100", min_usd: 1 }, 5], total: 2 },
        get_balance: { balance_usd: 5, burn_per_hour_usd: 0, limits: [null, { limit: "max_pods", allowed: 2 }] },
      },
      "market",
    );
    expect(shown()).toContain("2 offers could not be read.");
    expect(shown()).toContain("1 row could not be read.");
    view.value = "money";
    await settle(1);
    expect(shown()).toContain("1 row could not be read.");
  });

  test("jobs, backups and output of a pod", async () => {
    await page({
      list_pods: LIST,
      get_pod: { outcome: "done", pod: { ...POD, last_events: "x" } },
      get_job: { jobs: [null] },
      list_backups: { backups: [[], 5] },
      get_pod_logs: { lines: [{}, 1, null] },
    });
    await press("Details of train-a");
    expect(shown()).toContain("1 row could not be read.");
    expect(shown()).toContain("None of this pod could be read: 2 rows of the list could not be.");
    expect(shown()).toContain("3 lines could not be read.");
    expect(shown()).toContain("They could not be read.");
    expect(shown()).not.toContain("What it holds is lost with it");
  });
});

describe("money that is not all known", () => {
  test.each([
    [-12.34, "It is below zero, at -$12.34, and falling by $2.500 an hour."],
    [0, "It is at $0.00, and falling by $2.500 an hour."],
  ])("a balance of %s with a pod that burns", async (balance_usd, words) => {
    await page({ get_balance: { balance_usd, burn_per_hour_usd: 2.5 }, list_pods: LIST }, "money");
    expect(shown()).toContain(words);
    expect(shown()).toContain("Nothing leftfalls by $2.500 an hour");
    expect(shown()).toContain("Nothing is left.");
    expect(shown()).not.toContain("Nothing burns it");
    view.value = "pods";
    await settle(1);
    expect(shown()).toContain("nothing is left");
  });

  test("what falls is at least so much where not all pods were read", async () => {
    const listed = { ...LIST, pods: [POD, null], total: 2 };
    await page({ get_balance: { balance_usd: -1, burn_per_hour_usd: 5 }, list_pods: listed }, "money");
    expect(shown()).toContain("falling by at least $2.500 an hour.");
  });

  test("what pods cost is at least so much where one has no price or age", async () => {
    const pods = [POD, { pod_id: "b", name: "b", status: "RUNNING", billing: true }];
    await page({ list_pods: { ...LIST, pods, total: 2, unpriced_pods: 1 } });
    expect(shown()).toContain("$4.20at least: 1 pod not counted");
  });

  test.each<[View, string]>([
    ["money", "get_balance"],
    ["pods", "list_pods"],
  ])("what all burn is told in %s also where %s fails", async (at, failing) => {
    const told: Record<string, Json> = { list_pods: LIST, get_balance: { balance_usd: 9, burn_per_hour_usd: 2.5 } };
    await page({ ...told, [failing]: { ok: false, code: "lium_unreachable", message: "No." } }, at);
    expect(shown()).toContain("Burning$2.500/h");
  });

  test("a budget that is used up has nothing left, and one that is not bounded says why", async () => {
    const budget = { limit: "budget_usd", allowed: 10 };
    const balance = { balance_usd: 5, burn_per_hour_usd: 1, pods_without_removal_time: ["train-a"] };
    const host = await page(
      { get_balance: { ...balance, limits: [{ ...budget, used: 12 }] }, list_pods: LIST },
      "money",
    );
    expect(shown()).toContain("Over the budget$2.00$12.00 used of $10.00");
    expect(shown()).toContain("$12.00 used$2.00 over");
    host.answers.get_balance = { ...balance, limits: [budget] };
    await press("Read anew");
    expect(shown()).toContain("Left of the budget–not bounded: 1 pod without a removal time");
  });

  test("days outside of those that were asked for are said, and not drawn", async () => {
    const days = [
      { day: "2026-11-29", total_usd: 2 },
      { day: "2020-01-01", total_usd: 50 },
      { day: "2026-12-05", total_usd: 1 },
    ];
    const spending = {
      start_day: "2026-11-23",
      end_day: "2026-11-29",
      as_of: "2026-11-29T16:00:00Z",
      pods: [],
      total: 0,
    };
    const host = await page({ get_spending: { ...spending, days } }, "money");
    expect(shown()).toContain(
      "It tells $51.00 on 2 days outside of the last 7 days (2020-01-01, 2026-12-05): not drawn.",
    );
    expect(document.querySelectorAll(".equal tbody tr")).toHaveLength(7);
    host.answers.get_spending = { ...spending, start_day: "2026-10-01", days: [days[0], null], total_usd: 9 };
    await press("Read anew");
    expect(shown()).toContain("The answer is of 2026-10-01 to 2026-11-29, and not of the last 7 days.");
    expect(shown()).toContain("$9.00 from 2026-10-01 to 2026-11-29 (UTC)");
    expect(shown()).toContain("1 day could not be read");
    expect(document.querySelectorAll(".equal tbody tr")).toHaveLength(7);
  });
});

describe("what a field does not take is said at it", () => {
  async function type(input: HTMLInputElement, value: string): Promise<void> {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await settle(1);
  }

  test.each(["-1", "abc", "1e400", "0"])("the highest price %s", async (value) => {
    const host = await page({ list_gpus: OFFERS, get_gpu_prices: {} }, "market");
    const input = document.querySelectorAll<HTMLInputElement>(".filters input[inputmode=decimal]")[1];
    if (input === undefined) throw new Error("There is no field");
    await type(input, value);
    expect(document.getElementById(input.getAttribute("aria-describedby") ?? "")?.textContent).toBe(
      "Not used: it takes a number above 0.",
    );
    expect(host.calls.findLast(({ tool }) => tool === "list_gpus")?.args).toEqual({ limit: 50 });
  });

  test.each<[View, string, string, string]>([
    ["pods", "Change removal of train-a", "Set the time", "8,760"],
    ["market", "Rent H100, $1.400 an hour", "Rent it", "720"],
  ])("hours in %s", async (at, opener, main, most) => {
    await page({ list_pods: LIST, list_gpus: OFFERS, quote_rental: QUOTE, get_gpu_prices: {} }, at);
    await press(opener);
    const input = document.querySelector<HTMLInputElement>(".own input");
    if (input === null) throw new Error("There is no field");
    for (const value of ["1e9", "0", "-3", "abc", "8760.5"]) {
      await type(input, value);
      expect(shown()).toContain(`Hours are a number above 0, and at most ${most}.`);
      expect(button(main).disabled).toBe(true);
    }
    await type(input, "700");
    expect(shown()).not.toContain("Hours are a number");
    expect(button(main).disabled).toBe(false);
  });
});

test("what the server does not offer is no failure", async () => {
  const leftOut = { ok: false, code: "not_offered", message: "Its settings leave out get_spending." } as const;
  await page({ get_balance: { balance_usd: 5 }, list_pods: LIST, get_spending: leftOut }, "money");
  expect(shown()).toContain("This server does not offer it. Its settings leave out get_spending.");
  expect(document.querySelector(".trouble")).toBeNull();
});

describe("names that every object has", () => {
  test.each(["constructor", "__proto__", "toString"])("%s is a name as any other", async (name) => {
    const host = fakeHost({
      list_pods: { ...LIST, pods: [{ ...POD, status: name }], orders: [{ name, status: name }] },
      get_pod: { outcome: "done", pod: POD },
      get_job: { jobs: [{ job: name, status: name }] },
      get_balance: { balance_usd: 5, burn_per_hour_usd: 0, limits: [{ limit: name, allowed: 1 }] },
      list_backups: { ok: false, code: name, message: "No." },
    });
    host.read = (uri) => Promise.resolve(uri === "lium://rents" ? { rents: [{ name, status: name }] } : undefined);
    await showPage(host);
    await press("Details of train-a");
    expect(shown()).toContain(name);
    open({ tool: name, args: {}, answer: { ok: true, data: {} } });
    expect(view.value).toBe("pods");
    view.value = "money";
    await settle(1);
    expect(shown()).toContain(`${name.replaceAll("_", " ")}at most 1`);
    expect(shown()).not.toContain("could not be drawn");
  });
});

test("what cannot be drawn is said in its place, and the rest of the page stays", async () => {
  const host = fakeHost({ list_pods: LIST });
  const broken = vi.spyOn(Date.prototype, "toLocaleTimeString").mockImplementation(() => {
    throw new RangeError("no such zone");
  });
  await showPage(host);
  expect(shown()).toContain("What was read could not be drawn");
  expect(button("Market")).toBeDefined();
  broken.mockRestore();
  await press("Try again");
  expect(shown()).toContain("train-a");
  expect(shown()).not.toContain("could not be drawn");
});
