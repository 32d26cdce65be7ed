import { expect, test } from "vitest";
import type { Json } from "../src/data/shapes";
import { type Answer, trouble } from "../src/host/host";
import { open, view } from "../src/navigation";
import { wanted } from "../src/views/market/market_readings";
import { fakeHost, leavePage, settle, shown, showPage, turnTime } from "./fakes";

turnTime();

/** Answers of tools, with what the page shows of each. */
const ANSWERS: readonly (readonly [string, Json, Json, string])[] = [
  ["list_pods", { limit: 20 }, { pods: [{ pod_id: "a", name: "train-a", status: "RUNNING" }], total: 1 }, "train-a"],
  [
    "get_pod",
    { pod: "train-b" },
    { pod: { pod_id: "b", name: "train-b", status: "RUNNING", ssh_command: "ssh root@there" } },
    "ssh root@there",
  ],
  ["get_balance", {}, { balance_usd: 12.34 }, "$12.34"],
  [
    "get_spending",
    {},
    { start_day: "2026-10-31", end_day: "2026-11-29", total_usd: 7.77, pods: [], total: 0 },
    "$7.77 in 30 days",
  ],
  [
    "list_gpus",
    { gpu_type: "L4" },
    { offers: [{ executor_id: "n", gpu_type: "L4", price_per_hour_usd: 0.5 }], total: 900, next_cursor: "20" },
    "900 nodes",
  ],
  [
    "get_gpu_prices",
    { history_days: 7 },
    { gpu_types: [{ gpu_type: "B200", nodes: 1, min_usd: 4 }], total: 1 },
    "B200",
  ],
  ["quote_rental", {}, { gpu_type: "H100", gpu_count: 1, hours: 2, total_usd: 8.46, lines: [] }, "$8.46"],
];

const HOSTS: readonly (readonly [string, () => Promise<Answer>])[] = [
  ["refuses calls", () => Promise.resolve(trouble("refused_by_host", "Not allowed"))],
  ["never answers them", () => new Promise(() => undefined)],
];

for (const [what, call] of HOSTS)
  test.each(ANSWERS)(`the answer of %s is shown by a host that ${what}`, async (tool, args, data, words) => {
    open({ tool, args, answer: { ok: true, data } });
    await showPage({ ...fakeHost({}, "conversation"), call });
    expect(shown()).toContain(words);
    await settle(90);
    expect(shown()).toContain(words);
  });

test.each(ANSWERS)(
  "the answer of %s is shown in its view where the host does not name the tool",
  (tool, args, data) => {
    open({ tool, args: {}, answer: { ok: true, data } });
    const guessed = view.value;
    open({ tool, args, answer: { ok: true, data } });
    expect(view.value).toBe(guessed);
  },
);

test("a whole answer is not asked for again at once", async () => {
  for (const [tool, args, data] of ANSWERS.filter(([name]) => ["list_pods", "get_balance"].includes(name))) {
    open({ tool, args, answer: { ok: true, data } });
    const host = fakeHost({}, "conversation");
    await showPage(host);
    expect(host.calls.map((call) => call.tool)).not.toContain(tool);
    leavePage();
  }
});

test.each([
  ["list_gpus", "market"],
  ["get_gpu_prices", "market"],
  ["quote_rental", "market"],
  ["get_balance", "money"],
  ["list_activity", "money"],
  ["get_pod", "pods"],
])("%s that failed opens its view with its error", async (tool, where) => {
  open({
    tool,
    args: { cursor: "20" },
    answer: { ok: false, code: "invalid_argument", message: "There is no such thing." },
  });
  await showPage({ ...fakeHost({}, "conversation"), call: HOSTS[0]?.[1] as () => Promise<Answer> });
  expect(view.value).toBe(where);
  expect(shown()).toContain("There is no such thing.");
  await settle(600);
  expect(shown()).toContain("There is no such thing.");
});

test("the view is there before the answer is", () => {
  open({ tool: "list_gpus", args: { gpu_type: "L4" }, answer: undefined });
  expect([view.value, wanted.value]).toEqual(["market", { gpu_type: "L4" }]);
});

test("of charges that came without their days these are asked for at once", async () => {
  const data = { start_day: "2026-10-31", end_day: "2026-11-29", total_usd: 7.77, pods: [], total: 0 };
  open({ tool: "get_spending", args: {}, answer: { ok: true, data } });
  const host = fakeHost({ get_spending: { ...data, days: [{ day: "2026-11-29", total_usd: 7.77 }] } }, "conversation");
  await showPage(host);
  await settle(2);
  expect(host.calls.find(({ tool }) => tool === "get_spending")?.args).toMatchObject({ days: 30, by_day: true });
  expect(shown()).toContain("Spent today$7.77");
});

test("why the opening call failed is said without what is for an agent", async () => {
  const message = "There is no such activity. Nothing was changed. Call list_activity again.";
  open({ tool: "list_activity", args: {}, answer: { ok: false, code: "not_found", message } });
  await showPage(fakeHost({}, "conversation"));
  expect(shown()).toContain("There is no such activity.");
  expect(shown()).not.toContain("list_activity");
});
