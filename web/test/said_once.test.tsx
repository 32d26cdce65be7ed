// What is the same for all of the page is said once; what stands where a host lets the page call nothing.
import { describe, expect, test } from "vitest";
import { type Answer, muted, trouble } from "../src/host/host";
import { open, VIEWS, type View, view } from "../src/navigation";
import { button, type FakeHost, fakeHost, settle, shown, showPage, turnTime } from "./fakes";

turnTime();

const LIST = { pods: [{ pod_id: "a", name: "train-a", status: "RUNNING" }], total: 1, burn_per_hour_usd: 1 };
const OFFERS = { offers: [{ executor_id: "n", gpu_type: "L4", price_per_hour_usd: 0.5 }], total: 1 };
const SPENT = { start_day: "2026-11-28", end_day: "2026-11-29", total_usd: 7.77, days: [], pods: [], total: 0 };

function times(words: string): number {
  return shown().split(words).length - 1;
}

describe("a host that lets the page make no calls", () => {
  const answers: readonly (readonly [string, Record<string, unknown>, string])[] = [
    ["list_pods", LIST, "train-a"],
    ["list_gpus", OFFERS, "L4"],
    ["get_balance", { balance_usd: 12.34, burn_per_hour_usd: 0 }, "$12.34"],
    ["get_spending", SPENT, "$7.77"],
    ["get_gpu_prices", { gpu_types: [{ gpu_type: "B200", nodes: 1, min_usd: 4 }], total: 1 }, "B200"],
  ];
  test.each(answers)("says so once beside the answer of %s, and asks for nothing", async (tool, data, words) => {
    open({ tool, args: {}, answer: { ok: true, data } });
    muted.value = true;
    const host = fakeHost({}, "conversation");
    await showPage(host);
    await settle(90);
    expect(host.calls).toEqual([]);
    expect(shown()).toContain(words);
    expect(times("lets it make no calls")).toBe(1);
    expect(shown()).not.toMatch(/could not be read|did not make the call|Try again/);
    expect(document.querySelector(".loading")).toBeNull();
    for (const what of ["Read anew", "Rent L4, $0.500 an hour", "Remove train-a", "More", "Show its offers"])
      expect(() => button(what), what).toThrow();
    expect(document.querySelectorAll("nav button")).toHaveLength(1);
  });

  test("a call that failed keeps its own words", async () => {
    open({ tool: "list_gpus", args: {}, answer: { ok: false, code: "invalid_argument", message: "No such cursor." } });
    muted.value = true;
    await showPage(fakeHost({}, "conversation"));
    expect(times("No such cursor.")).toBe(1);
    expect(times("lets it make no calls")).toBe(1);
  });
});

describe("what is the same for all that is read", () => {
  const WAYS: readonly (readonly [Answer & { message: string }, string])[] = [
    [trouble("refused_by_host", "The person does not let it."), "did not make the call"],
    [trouble("unreachable", "The server on this machine does not answer."), "The server does not answer"],
    [{ ok: false, code: "lium_unreachable", message: "No connection to Lium." }, "Lium cannot be reached"],
  ];
  const cases = WAYS.flatMap(([answer, title]) => VIEWS.map((name) => [name, answer, title] as const));
  test.each(cases)("is said once in %s: %j", async (name: View, answer, title) => {
    const all = ["list_pods", "get_balance", "get_spending", "list_gpus", "get_gpu_prices", "list_backups"];
    const host = fakeHost(Object.fromEntries(all.map((tool) => [tool, answer])));
    view.value = name;
    await showPage(host);
    expect(times(answer.message)).toBe(1);
    expect(times(title)).toBe(1);
    host.answers = { list_pods: LIST, list_gpus: OFFERS, get_spending: SPENT, get_balance: { balance_usd: 5 } };
    button("Try again").click();
    await settle(1);
    expect(shown()).not.toContain(answer.message);
    expect(shown()).toMatch(/train-a|L4|\$7\.77/);
  });

  test("is said once above what was read before", async () => {
    const before: FakeHost["answers"] = {
      list_pods: LIST,
      get_balance: { balance_usd: 5 },
      list_backups: { backups: [] },
      get_pod: { outcome: "done", pod: LIST.pods[0] },
    };
    const host = fakeHost(before);
    await showPage(host);
    const failing = trouble("unreachable", "The server on this machine does not answer.");
    host.answers = Object.fromEntries(Object.keys(before).map((tool) => [tool, failing]));
    button("Read anew").click();
    await settle(1);
    expect(shown()).toContain("train-a");
    expect(times("does not answer")).toBe(1);
    expect(shown()).toContain("Not read anew");
    host.answers = before;
    button("Try again").click();
    await settle(1);
    expect(shown()).not.toContain("does not answer");
  });

  test("what fails alone is said where it stands", async () => {
    const failing = trouble("unreachable", "The server on this machine does not answer.");
    await showPage(fakeHost({ list_pods: failing, get_balance: { balance_usd: 5 } }));
    expect(document.querySelector(".view .trouble")?.textContent).toContain("does not answer");
  });
});
