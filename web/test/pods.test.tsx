import { expect, test } from "vitest";
import { policy } from "../src/data/server";
import { asked, askPerson } from "../src/host/questions";
import { button, type FakeHost, fakeHost, leavePage, settle, shown, showPage, turnTime } from "./fakes";

const POD = {
  pod_id: "id-1",
  name: "train-a",
  status: "RUNNING",
  gpu_type: "H100",
  gpu_count: 2,
  price_per_hour_usd: 2.5,
  billing: true,
  removal_at: "2026-11-29T20:00:00Z",
  template: "PyTorch",
  cost_estimate_usd: 4.2,
};
const LIST = { now: "2026-11-29T16:00:00Z", pods: [POD], total: 1, burn_per_hour_usd: 2.5 };

turnTime();

async function page(host: FakeHost): Promise<FakeHost> {
  await showPage(host);
  return host;
}

test("a pod stands with its state, price, cost, and the time to its removal", async () => {
  await page(fakeHost({ list_pods: LIST, get_balance: { balance_usd: 100, runway_hours: 40 } }));
  for (const words of [
    "train-a",
    "Running",
    "2× H100",
    "$2.500",
    "$4.20",
    "in 4 h 00 min",
    "$60.00 a day",
    "lasts past all removals; 1 d 16 h if all run on",
  ])
    expect(shown()).toContain(words);
});

test("a pod that has not started is removed so long after it has", async () => {
  const { removal_at: _, ...rest } = POD;
  const starting = { ...rest, status: "PENDING", billing: false, removal_hours_after_boot: 3 };
  await page(fakeHost({ list_pods: { ...LIST, pods: [starting] } }));
  expect(shown()).toContain("3 h 00 min");
  expect(shown()).toContain("after it has started");
  expect(shown()).not.toContain("No time set");
});

test("extending asks for a time, says what it costs, and tells the model what the person did", async () => {
  const host = await page(
    fakeHost({
      list_pods: LIST,
      schedule_pod_removal: { pod_id: "id-1", name: "train-a", removal_at: "2026-11-30T04:00:00Z" },
    }),
  );
  button("Change removal of train-a").click();
  await settle();
  expect(button("Set the time").disabled).toBe(true);
  button("12 h").click();
  await settle();
  expect(shown()).toContain("From now until then: $30.00.");
  button("Set the time").click();
  await settle();
  expect(host.calls).toContainEqual({ tool: "schedule_pod_removal", args: { pod: "id-1", hours_from_now: 12 } });
  expect(host.told[0]).toContain("the person set the removal of pod train-a (id-1) to 12 hours from now");
  expect(shown()).toContain("train-a will be removed");
});

test("what limits will refuse of another time is said before", async () => {
  const limits = [{ limit: "max_hours", allowed: 24 }];
  const pods = [{ ...POD, age_hours: 6 }];
  await page(fakeHost({ list_pods: { ...LIST, pods }, get_balance: { balance_usd: 9, burn_per_hour_usd: 0, limits } }));
  button("Change removal of train-a").click();
  await settle();
  expect(shown()).toContain("Taking the time off is refused by the limits of this server: Life of a pod.");
  button("12 h").click();
  await settle();
  expect(shown()).not.toContain("The limits of this server will");
  button("24 h").click();
  await settle();
  expect(shown()).toContain(
    "The limits of this server will refuse it:Life of a pod: at most 1 d in all: 18 h from now.",
  );
  expect(button("Set the time").disabled).toBe(false);
});

test("what the server does not offer has no button", async () => {
  await page(fakeHost({ list_pods: LIST }));
  policy.value = { readOnly: false, sandbox: false, all: { toolsets: ["pods"], deny_tools: ["remove_pod"] } };
  await settle();
  expect(button("Change removal of train-a")).toBeDefined();
  for (const name of ["Remove train-a", "Back up train-a"]) expect(() => button(name)).toThrow();
});

test("a question of the same words as the one before is filled in anew", async () => {
  await page(fakeHost({ list_pods: LIST }));
  const requestedSchema = { properties: { name: { type: "string" } }, required: ["name"] };
  const params = { message: "Its name?", requestedSchema };
  const [first, second] = [0, 1].map(() => askPerson({ method: "elicitation/create", params }));
  await settle();
  const input = document.querySelector<HTMLInputElement>("dialog input");
  if (input === null) throw new Error("There is no field");
  input.value = "train-a";
  input.dispatchEvent(new Event("input", { bubbles: true }));
  await settle();
  button("Answer").click();
  expect(await first).toMatchObject({ content: { name: "train-a" } });
  await settle();
  expect(button("Answer").disabled).toBe(true);
  button("No").click();
  expect(await second).toEqual({ action: "decline" });
});

test("closing a form does nothing", async () => {
  const host = await page(fakeHost({ list_pods: LIST }));
  button("Remove train-a").click();
  await settle();
  button("Keep it").click();
  await settle();
  expect(host.calls.map(({ tool }) => tool)).not.toContain("remove_pod");
  expect(host.told).toEqual([]);
});

test("a removal takes a last backup first unless that is taken off", async () => {
  const host = await page(
    fakeHost({ list_pods: LIST, remove_pod: { outcome: "done", name: "train-a", pod_id: "id-1", charged_usd: 4.2 } }),
  );
  button("Remove train-a").click();
  await settle();
  button("Remove").click();
  await settle();
  expect(host.calls).toContainEqual({ tool: "remove_pod", args: { pod: "id-1", final_backup: true } });
  expect(shown()).toContain("train-a is removed; it cost $4.20.");
});

test("what a person did not agree to is no failure, and the model hears of it", async () => {
  const refused = { ok: false, code: "not_confirmed", message: "Not done: the person declined." } as const;
  const host = await page(fakeHost({ list_pods: LIST, create_backup: refused }));
  button("Back up train-a").click();
  await settle();
  button("Back up").click();
  await settle();
  expect(shown()).toContain("Back up train-a: Nothing was done: you did not agree.");
  expect(host.told[0]).toContain("It was not done");
});

test("a failure names the pod and the action, stands once, and goes away by closing", async () => {
  const failed = { ok: false, code: "busy", message: "Lium is at it." } as const;
  await page(fakeHost({ list_pods: LIST, create_backup: failed }));
  for (let i = 0; i < 3; i++) {
    button("Back up train-a").click();
    await settle();
    button("Back up").click();
    await settle();
  }
  expect(shown().split("Back up train-a: Lium is at it.")).toHaveLength(2);
  await settle(60);
  expect(shown()).toContain("Lium is at it.");
  button("Dismiss this message").click();
  await settle();
  expect(shown()).not.toContain("Lium is at it.");
});

test("what takes long is said while it does, but not while the server asks", async () => {
  const host = fakeHost({ list_pods: LIST });
  let done = (): void => undefined;
  const call = host.call;
  host.call = (tool, args) =>
    tool !== "remove_pod"
      ? call(tool, args)
      : new Promise((resolve) => {
          done = () => resolve({ ok: true, data: { outcome: "done", name: "train-a" } });
        });
  await page(host);
  button("Remove train-a").click();
  await settle();
  button("Remove").click();
  await settle();
  expect(shown()).toContain("Remove train-a: under way");
  button("Remove train-a").click();
  await settle();
  expect(document.querySelector("dialog")).toBeNull();
  const answer = askPerson({ method: "elicitation/create", params: { message: "Sure?" } });
  await settle();
  expect(shown()).not.toContain("under way");
  asked.value[0]?.settle({ action: "accept" });
  await answer;
  await settle();
  expect(shown()).toContain("Remove train-a: under way");
  done();
  await settle();
  expect(shown()).not.toContain("under way");
  expect(shown()).toContain("train-a is removed");
});

test("a server that is read-only has no buttons to change anything", async () => {
  policy.value = { readOnly: true, sandbox: false, all: {} };
  await page(fakeHost({ list_pods: LIST }));
  policy.value = { readOnly: true, sandbox: false, all: {} };
  await settle();
  expect(() => button("Remove train-a")).toThrow();
  expect(shown()).toContain("Read-only");
});

test("no pods, no key, and no answer each have their own words", async () => {
  const host = await page(fakeHost({ list_pods: { pods: [], total: 0, burn_per_hour_usd: 0 } }));
  expect(shown()).toContain("No pod runs, and nothing bills");
  leavePage();
  host.answers = { list_pods: { ok: false, code: "api_key_missing", message: "This needs a key" } };
  await showPage(host);
  expect(shown()).toContain("There is no Lium API key yet");
  leavePage();
  host.answers = { list_pods: { ok: false, code: "lium_unreachable", message: "No connection to Lium" } };
  await showPage(host);
  expect(shown()).toContain("Lium cannot be reached");
  expect(shown()).not.toContain("No pod runs");
});

test("a failure after an answer leaves what was read, and says that it is old", async () => {
  const host = await page(fakeHost({ list_pods: LIST }));
  host.answers.list_pods = { ok: false, code: "lium_unreachable", message: "No connection to Lium" };
  await settle(20);
  expect(shown()).toContain("train-a");
  expect(shown()).toContain("20 s ago, not all is read");
  expect(shown()).toContain("Of 20 s ago, not read anew: No connection to Lium");
  expect(shown()).toContain("Running1of 20 s ago, not read anew");
});

test("the balance that could not be read anew says of when it is, and the head the age of the oldest", async () => {
  const host = await page(fakeHost({ list_pods: LIST, get_balance: { balance_usd: 100, burn_per_hour_usd: 2.5 } }));
  host.answers.get_balance = { ok: false, code: "lium_failed", message: "Lium answered 500. Nothing was changed." };
  await settle(90);
  button("Read anew").click();
  await settle(1);
  expect(shown()).toContain("Balance$100.00of 1 min ago, not read anew");
  expect(document.querySelector(".freshness")?.textContent).toBe("1 min ago, not all is read");
  expect(shown()).not.toContain("Up to date");
  expect(shown()).not.toContain("Nothing was changed");
});

test("after an act all is read anew, also what was under way, and again until Lium has seen it", async () => {
  const host = await page(fakeHost({ list_pods: LIST, get_balance: { balance_usd: 100, burn_per_hour_usd: 2.5 } }));
  const reads = (tool: string): number => host.calls.filter((call) => call.tool === tool).length;
  await settle(1);
  // What readings may ask for by themselves is used up.
  for (let i = 0; i < 8; i++) {
    button("Read anew").click();
    await settle();
  }
  const before = [reads("get_balance"), reads("list_pods")];
  button("Remove train-a").click();
  await settle(1);
  button("Remove").click();
  await settle(1);
  expect(reads("get_balance")).toBe((before[0] ?? 0) + 1);
  expect(reads("list_pods")).toBe((before[1] ?? 0) + 1);
  await settle(10);
  expect(reads("get_balance")).toBe((before[0] ?? 0) + 2);
});

test("nothing that Lium says breaks the list", async () => {
  const evil = "<img src=x onerror=alert(1)>";
  const pods = [
    POD,
    null,
    7,
    [],
    {},
    { name: evil, status: {}, price_per_hour_usd: "free", removal_at: 5, pod_id: evil },
  ];
  await page(
    fakeHost({
      list_pods: { pods, burn_per_hour_usd: null, orders: [{}, null], unsettled: "no" },
      get_pod: { pod: 5 },
    }),
  );
  expect(shown()).toContain(evil);
  expect(document.querySelector("img")).toBeNull();
  expect(shown()).not.toMatch(/undefined|NaN|null|\[object/);
});

test("the details of a pod read its GPUs, jobs, backups and output", async () => {
  await page(
    fakeHost({
      list_pods: LIST,
      get_pod: {
        outcome: "done",
        pod: { ...POD, gpus: [{ index: 0, utilization_percent: 87, memory_used_gb: 40, memory_total_gb: 80 }] },
      },
      get_job: { jobs: [{ job: "sft", status: "running", started_at: "2026-11-29T15:00:00Z" }] },
      list_backups: {
        backups: [
          { backup_id: "b", pod_id: "id-1", status: "COMPLETED", completed_at: "2026-11-29T13:00:00Z", size_gb: 12 },
        ],
      },
      get_pod_logs: { lines: ["step 1", "step 2"] },
    }),
  );
  button("Details of train-a").click();
  await settle();
  for (const words of ["87%", "40 GB of 80 GB", "sft", "for 1 h 00 min", "3 h ago", "12 GB", "step 1\nstep 2"])
    expect(shown()).toContain(words);
});

test("a part of a list is not taken for the whole", async () => {
  await page(
    fakeHost({
      list_pods: { ...LIST, total: 230, next_cursor: "100" },
      get_pod: { outcome: "done", pod: POD },
      list_backups: { backups: [], next_cursor: "100" },
    }),
  );
  expect(shown()).toContain("Only the first 1 of 230 pods are shown.");
  button("Details of train-a").click();
  await settle();
  expect(shown()).toContain("among the newest of the account");
  expect(shown()).not.toContain("None of this pod. What");
});

test("a removal that Lium sets and the server cannot read is not none", async () => {
  const { removal_at: _, ...rest } = POD;
  await page(fakeHost({ list_pods: { ...LIST, pods: [{ ...rest, removal_unreadable: true }] } }));
  expect(shown()).toContain("Time cannot be readit may have one");
  expect(shown()).not.toMatch(/No time set|bills until removed|none has a time/);
  button("Change removal of train-a").click();
  await settle();
  expect(shown()).toContain("Its removal time cannot be read: it may have one.");
});

test("pods of one name are told apart, in their rows, buttons and sheets", async () => {
  const member = { ...POD, name: "dist", cluster_id: "c0ffee00-1" };
  const pods = [
    { ...member, pod_id: "a1", cluster_rank: 0 },
    { ...member, pod_id: "a2", cluster_rank: 1 },
    { ...POD, pod_id: "11112222-3", name: "twin" },
    { ...POD, pod_id: "33334444-5", name: "twin" },
  ];
  const host = await page(
    fakeHost({ list_pods: { ...LIST, pods, total: 4 }, get_pod: { outcome: "done", pod: pods[1] } }),
  );
  for (const title of ["dist, rank 0", "dist, rank 1", "twin, 11112222", "twin, 33334444"]) {
    expect(button(`Remove ${title}`)).toBeDefined();
    expect(button(`Details of ${title}`)).toBeDefined();
  }
  button("Remove dist, rank 1").click();
  await settle();
  expect(document.querySelector("dialog")?.textContent).toContain("dist, rank 1");
  button("Remove").click();
  await settle();
  expect(host.told[0]).toContain("removed pod dist, rank 1 (a2)");
  button("Details of dist, rank 1").click();
  await settle();
  expect(shown()).toContain("Rank 1 of c0ffee00-1");
});

test("a pod that another key rented is marked in its row, details and sheets", async () => {
  const pod = { ...POD, rented_with_key: "bob-laptop" };
  const ours = { ...POD, pod_id: "id-2", name: "ours" };
  await page(fakeHost({ list_pods: { ...LIST, pods: [pod, ours] }, get_pod: { outcome: "done", pod } }));
  expect(shown()).toContain("key bob-laptop");
  for (const sheet of ["Remove", "Back up", "Change removal of"]) {
    button(`${sheet} train-a`).click();
    await settle();
    expect(document.querySelector("dialog")?.textContent).toContain("rented with API key bob-laptop, and not by this");
    button(sheet === "Remove" ? "Keep it" : "Cancel").click();
    await settle();
  }
  button("Details of train-a").click();
  await settle();
  expect(shown()).toContain("API keybob-laptop");
});

test.each([
  ["auto", "the program that shows this page cannot ask you"],
  ["never", "by its settings, this server asks nobody"],
])("where nobody asks again (confirm=%s), each sheet says so", async (confirm, why) => {
  await page(fakeHost({ list_pods: LIST }));
  for (const [asks, isSaid] of [
    [false, true],
    [true, false],
  ] as const) {
    policy.value = { readOnly: false, sandbox: false, all: { confirm, asks_person: asks } };
    for (const sheet of ["Remove", "Back up", "Change removal of"]) {
      button(`${sheet} train-a`).click();
      await settle();
      expect(shown().includes(`Nobody asks you again: ${why}. What you press here is done at once.`)).toBe(isSaid);
      button(sheet === "Remove" ? "Keep it" : "Cancel").click();
      await settle();
    }
  }
});

test("what a host answered by itself is not told as a no of the person", async () => {
  const message = "The question was answered faster than anybody reads: the client may have answered by itself.";
  const refused = { ok: false, code: "not_confirmed", message } as const;
  await page(fakeHost({ list_pods: LIST, create_backup: refused }, "conversation"));
  button("Back up train-a").click();
  await settle();
  button("Back up").click();
  await settle();
  expect(shown()).toContain(`Back up train-a: Nothing was done: no yes came. ${message}`);
  expect(shown()).not.toContain("you did not agree");
});

test("a row says one thing of whether it bills", async () => {
  const { removal_at: _, billing: __, ...rest } = POD;
  const pods = [
    { ...rest, pod_id: "f", name: "f", status: "CREATION_FAILED", billing: false },
    { ...rest, pod_id: "d", name: "d", status: "DELETING" },
    { ...rest, pod_id: "b", name: "b", status: "BROKEN" },
  ];
  await page(fakeHost({ list_pods: { ...LIST, pods, total: 3, unknown_billing_pods: 2, unpriced_pods: 1 } }));
  const cells = [...document.querySelectorAll(".col-removal")].slice(1).map((cell) => cell.textContent);
  expect(cells).toEqual(["No time setstays until removed", "Under way", "No time setmay bill until removed"]);
  expect(shown()).not.toContain("bills until removed");
  expect(shown()).toContain("at least: 1 pod unpriced, 2 pods may bill");
});

test("a figure that is not known is no empty bar", async () => {
  await page(fakeHost({ list_pods: LIST, get_pod: { outcome: "done", pod: { ...POD, gpus: [{ index: 0 }] } } }));
  const bars = (): (string | null)[] =>
    [...document.querySelectorAll(".meter")].map((bar) => bar.getAttribute("class"));
  expect(bars()).toEqual(["meter unknown"]);
  button("Details of train-a").click();
  await settle();
  expect(bars()).toEqual(["meter unknown", "meter unknown", "meter unknown"]);
  expect(shown()).not.toContain("0%");
});

test("a backup under way, or one that failed, does not hide the last that is complete", async () => {
  const backup = (id: string, status: string, at: string) => ({
    backup_id: id,
    pod_id: "id-1",
    status,
    started_at: at,
  });
  const done = backup("1", "COMPLETED", "2026-11-29T14:00:00Z");
  const failed = backup("2", "FAILED", "2026-11-29T15:00:00Z");
  const host = await page(fakeHost({ list_pods: LIST, list_backups: { backups: [failed, done] } }));
  expect(shown()).toContain("2 h agofailed 1 h ago");
  button("Remove train-a").click();
  await settle();
  expect(shown()).toContain("Last backup: 2 h ago; a later one failed 1 h ago.");
  button("Keep it").click();
  host.answers.list_backups = { backups: [backup("3", "RUNNING", "2026-11-29T15:59:00Z"), failed, done] };
  await settle(130);
  expect(shown()).toContain("2 h agonow");
  leavePage();
  host.answers.list_backups = { backups: [done, backup("2", "FAILED", "2026-11-29T13:00:00Z")] };
  await showPage(host);
  expect(shown()).not.toContain("failed");
});

test("what could not be read at first says why it is all dashes", async () => {
  const down = (message: string) => ({ ok: false, code: "lium_failed", message }) as const;
  await page(
    fakeHost({ list_pods: LIST, list_backups: down("No backups: 500."), get_balance: down("No money: 502.") }),
  );
  expect(shown()).toContain("Backups could not be read: No backups: 500.");
  expect(shown()).toContain("The balance could not be read: No money: 502.");
});

test("the next removal that is over is due, and one that is under way is not next", async () => {
  const pods = [
    { ...POD, removal_at: "2026-11-29T15:30:00Z" },
    { ...POD, pod_id: "g", name: "g", status: "DELETING", removal_at: "2026-11-29T15:00:00Z" },
  ];
  await page(fakeHost({ list_pods: { ...LIST, pods, total: 2 } }));
  expect(shown()).toContain("Next removalDue nowtrain-a");
});

test("the row of an open pod and its details tell one cost", async () => {
  const pod = { ...POD, cost_so_far_usd: 4.19 };
  await page(fakeHost({ list_pods: LIST, get_pod: { outcome: "done", pod } }));
  const cost = (): string | null | undefined => document.querySelector("td.col-cost")?.textContent;
  expect(cost()).toBe("$4.20");
  button("Details of train-a").click();
  await settle();
  expect(cost()).toBe("$4.19");
  expect(shown()).toContain("Cost so far$4.19");
});

test("failures do not pile up over what people press next", async () => {
  const host = await page(fakeHost({ list_pods: LIST }));
  for (const message of ["First.", "Second.", "Third."]) {
    host.answers.create_backup = { ok: false, code: "busy", message };
    button("Back up train-a").click();
    await settle();
    button("Back up").click();
    await settle();
  }
  expect(document.querySelectorAll(".notice")).toHaveLength(1);
  expect(shown()).toContain("Third.");
  button("2 more").click();
  await settle();
  expect(document.querySelectorAll(".notice")).toHaveLength(3);
});

test("events are told in words", async () => {
  const last_events = [
    { at: "2026-11-29T15:00:00Z", event: "pod-rent.requested", status: "PENDING" },
    { at: "2026-11-29T15:01:00Z", event: "pod-gpu-reset.began", status: "REBOOT_PENDING" },
  ];
  await page(fakeHost({ list_pods: LIST, get_pod: { outcome: "done", pod: { ...POD, last_events } } }));
  button("Details of train-a").click();
  await settle();
  for (const words of ["Rent requestedPending", "Pod gpu reset beganReboot pending"]) expect(shown()).toContain(words);
  expect(shown()).not.toContain("pod-rent.requested");
});
