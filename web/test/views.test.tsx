import { describe, expect, test } from "vitest";
import { policy } from "../src/data/server";
import { open, view } from "../src/navigation";
import { wanted } from "../src/views/market/market_readings";
import { button, type FakeHost, fakeHost, settle, shown, showPage, turnTime } from "./fakes";

turnTime();

const OFFERS = {
  offers: [
    {
      executor_id: "node-1",
      gpu_type: "H100 PCIe",
      rentable_gpus: "1-2",
      price_per_hour_usd: 1.41,
      price_per_gpu_hour_usd: 1.41,
      vram_gb: 80,
      tier: "spot",
    },
    { executor_id: "node-2", gpu_type: "L4", price_per_hour_usd: "cheap" },
  ],
  total: 5000,
  next_cursor: "50",
};
const QUOTE = { executor_id: "node-1", gpu_count: 1, hours: 6, price_per_hour_usd: 1.4105, total_usd: 8.46, lines: [] };

function lastCall(host: FakeHost, tool: string) {
  return host.calls.findLast((call) => call.tool === tool)?.args;
}

function field(title: string): HTMLInputElement {
  const label = [...document.querySelectorAll("label")].find((each) => each.textContent === title);
  const found = document.getElementById(label?.htmlFor ?? "");
  if (!(found instanceof HTMLElement)) throw new Error(`There is no field "${title}"`);
  return found as HTMLInputElement;
}

async function type(title: string, value: string): Promise<void> {
  const input = field(title);
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  await settle(1);
}

describe("the market", () => {
  async function market(answers: FakeHost["answers"] = {}): Promise<FakeHost> {
    const host = fakeHost({ list_gpus: OFFERS, get_gpu_prices: {}, quote_rental: QUOTE, ...answers });
    view.value = "market";
    await showPage(host);
    return host;
  }

  test("wishes and pages go to the server, and what is no figure does not", async () => {
    const host = await market();
    expect(shown()).toContain("1–2 of 5,000");
    await type("GPU", "H100");
    await type("At most ($/GPU h)", "1,5");
    expect(lastCall(host, "list_gpus")).toEqual({ gpu_type: "H100", max_usd_per_gpu_hour: 1.5, limit: 50 });
    await type("At most ($/GPU h)", "cheap");
    expect(wanted.value).toEqual({ gpu_type: "H100" });
    expect(field("At most ($/GPU h)").getAttribute("aria-invalid")).toBe("true");
    button("Next").click();
    await settle(1);
    expect(lastCall(host, "list_gpus")).toEqual({ gpu_type: "H100", limit: 50, cursor: "50" });
    expect(shown()).toContain("51–52 of 5,000");
    button("Clear").click();
    await settle(1);
    expect(wanted.value).toEqual({});
  });

  test("a rent asks for no more than was shown, and the model hears of it", async () => {
    const host = await market({
      rent_pod: {
        outcome: "done",
        pod: { pod_id: "p1", name: "train-a", status: "PENDING", price_per_hour_usd: 1.4105 },
      },
    });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("$8.46");
    expect(host.calls.some(({ tool }) => tool === "rent_pod")).toBe(false);
    await type("Name of the pod", "train-a");
    button("Rent it").click();
    await settle(1);
    expect(lastCall(host, "rent_pod")).toEqual({
      name: "train-a",
      executor_id: "node-1",
      gpu_count: 1,
      hours: 6,
      wait_seconds: 0,
      max_usd_per_hour: 1.411,
    });
    expect(host.told[0]).toContain("rented pod train-a");
    expect(view.value).toBe("pods");
  });

  test("a rent says where, which node, and what is on top of its price", async () => {
    const egress = { item: "egress", unit: "GB", quantity: 0, note: "charged at provider cost" };
    const offers = [{ ...OFFERS.offers[0], country: "DE" }];
    await market({ list_gpus: { offers, total: 1 }, quote_rental: { ...QUOTE, lines: [egress] } });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("egresscharged at provider cost, on top");
    expect(document.querySelector("dialog")?.textContent).toContain("CountryGermanyNodenode-1Template");
  });

  test("hours that cannot be used leave no price of others beside them", async () => {
    await market();
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    const other = document.querySelector<HTMLInputElement>(".own input");
    for (const wrong of ["0", "721", "1,000", "1.000"]) {
      if (other === null) throw new Error("There is no field for other hours");
      other.value = wrong;
      other.dispatchEvent(new Event("input", { bubbles: true }));
      await settle(1);
      expect(shown(), wrong).not.toContain("$8.46");
      expect(button("Rent it").disabled, wrong).toBe(true);
    }
    expect(shown()).toContain("1.000 can be read in two ways: write 1000 or 1.");
  });

  test("a name that a pod has is said before", async () => {
    await market({ list_pods: { pods: [{ pod_id: "a", name: "train-a", status: "RUNNING" }], total: 1 } });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    await type("Name of the pod", "train-a");
    expect(shown()).toContain("A pod of this name is there already");
    await type("Name of the pod", "train-b");
    expect(shown()).not.toContain("A pod of this name is there already");
  });

  test("a figure that can be read in two ways is not used, unless the page itself has it", async () => {
    const host = await market();
    await type("At most ($/GPU h)", "1,250");
    expect(shown()).toContain("Not used: 1,250 can be read in two ways: write 1250 or 1.25.");
    expect(lastCall(host, "list_gpus")).toEqual({ limit: 50 });
    wanted.value = { max_usd_per_gpu_hour: 1.125 };
    await settle(1);
    expect(lastCall(host, "list_gpus")).toMatchObject({ max_usd_per_gpu_hour: 1.125 });
  });

  const LIMITS = {
    balance_usd: 50,
    burn_per_hour_usd: 0,
    limits: [
      { limit: "max_hours", allowed: 12 },
      { limit: "max_price_per_hour_usd", allowed: 1 },
    ],
  };

  test("what limits will refuse is said before a rent, which the server judges all the same", async () => {
    const refused = { ok: false, code: "policy_refused", message: "At most 12 hours." } as const;
    const host = await market({ get_balance: LIMITS, rent_pod: refused });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("The limits of this server will refuse it:");
    expect(shown()).toContain("Price of one pod: at most $1.000 an hour, and this costs $1.411.");
    expect(shown()).not.toContain("Life of a pod");
    button("3 d").click();
    await settle(1);
    expect(shown()).toContain("Life of a pod: at most 12 h, and this is for 3 d.");
    button("Rent it").click();
    await settle(1);
    expect(lastCall(host, "rent_pod")).toMatchObject({ hours: 72 });
  });

  test("where no balance can be read, the limits are those of the policy", async () => {
    await market({ get_balance: { ok: false, code: "api_key_missing", message: "" } });
    policy.value = { readOnly: false, sandbox: false, all: { limits: LIMITS.limits } };
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("The limits of this server will refuse it:");
  });

  test("limits that refuse nothing of it are not spoken of", async () => {
    await market({ get_balance: { ...LIMITS, limits: [{ limit: "max_hours", allowed: 12 }] } });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).not.toContain("The limits of this server");
  });

  test("a balance that Lium does not rent to is said before", async () => {
    await market({ quote_rental: { ...QUOTE, balance_usd: 0.3, balance_must_exceed_usd: 0.36 } });
    button("Rent H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("Lium will refuse it: the balance must be above $0.36 for a rent.");
  });

  test.each([{ deny_tools: ["rent_pod"] }, { allow_tools: ["list_gpus"] }, { toolsets: ["marketplace", "account"] }])(
    "a server that offers no rents, by %j, prices only",
    async (all) => {
      await market();
      policy.value = { readOnly: false, sandbox: false, all };
      await settle(1);
      button("Price H100 PCIe, $1.410 an hour").click();
      await settle(1);
      expect(shown()).toContain("This server does not offer rent_pod: nothing is rented here.");
      expect(() => button("Rent it")).toThrow();
    },
  );

  test("what is left out of the market, and what is gone from it, is said", async () => {
    const incomplete = "2 more nodes would do, but Lium says no price that can be billed: left out.";
    const lowest = { min_usd: 1.5, median_usd: 2, max_usd: 3, samples: 40 };
    const history = { at: ["2026-11-29T10:00:00Z"], lowest_usd: [1.75], median_usd: [2] };
    const gone = [{ gpu_type: "B300", last_seen: "2026-11-29T10:00:00Z", past: { lowest_last_week: lowest, history } }];
    const prices = { gpu_types: [{ gpu_type: "L4", min_usd: 1 }], total: 1, gone, incomplete };
    const host = await market({ get_gpu_prices: prices, list_gpus: { offers: [], total: 0, incomplete } });
    expect(shown().split(incomplete), "once, though two answers say it").toHaveLength(2);
    expect(shown()).toContain("Gone from the market");
    expect(shown()).toContain("B3006 h ago$1.750$1.500 to $3.000$2.000");
    host.answers.get_gpu_prices = { gpu_types: [], total: 0, gone };
    button("Read anew").click();
    await settle(1);
    expect(shown()).toContain("B300");
    expect(shown()).toContain("Nothing is for rent now");
  });

  test("what has no price cannot be rented", async () => {
    await market({ quote_rental: { total_usd: null } });
    button("Rent L4, – an hour").click();
    await settle(1);
    expect(shown()).toContain("What it costs is not known");
    expect(button("Rent it").disabled).toBe(true);
  });

  test("a server that only reads prices, and rents nothing", async () => {
    await market();
    policy.value = { readOnly: true, sandbox: false, all: {} };
    await settle(1);
    button("Price H100 PCIe, $1.410 an hour").click();
    await settle(1);
    expect(shown()).toContain("$8.46");
    expect(shown()).not.toContain("Rent it");
  });

  test("opens with the wishes and the quote of the model", async () => {
    const args = { gpu_type: "H100", hours: 6 };
    open({ tool: "quote_rental", args, answer: { ok: true, data: QUOTE } });
    const host = fakeHost({ list_gpus: OFFERS, get_gpu_prices: {} });
    await showPage(host);
    expect(shown()).toContain("What it would cost");
    expect(lastCall(host, "list_gpus")).toEqual({ gpu_type: "H100", limit: 50 });
  });

  test.each([
    [undefined, 0],
    ["20", 1],
  ])("opens with the offers that a model had listed, if these are all (cursor %s)", async (next_cursor, calls) => {
    const data = { offers: OFFERS.offers, total: 2, next_cursor };
    open({ tool: "list_gpus", args: { country: "US" }, answer: { ok: true, data } });
    const host = fakeHost({ list_gpus: OFFERS, get_gpu_prices: {} });
    await showPage(host);
    expect(shown()).toContain("H100 PCIe");
    expect(host.calls.filter(({ tool }) => tool === "list_gpus")).toHaveLength(calls);
  });

  test("a failure stands where offers would, and nothing for rent is no failure", async () => {
    const host = await market({ list_gpus: { ok: false, code: "rate_limited", message: "Too many requests." } });
    expect(shown()).toContain("Too many requests.");
    host.answers.list_gpus = { offers: [], total: 0, next: "Nothing is on offer." };
    button("Read anew").click();
    await settle(1);
    expect(shown()).toContain("Nothing is for rent now");
  });
});

describe("the money", () => {
  async function money(answers: FakeHost["answers"]): Promise<FakeHost> {
    const host = fakeHost(answers);
    view.value = "money";
    await showPage(host);
    return host;
  }

  test("without a key it says what to do once, in words for people", async () => {
    const failure = { ok: false, code: "api_key_missing", message: "Have the user run it." } as const;
    await money({ get_balance: failure, list_pods: failure, get_spending: failure });
    expect(shown().split("There is no Lium API key yet")).toHaveLength(2);
    expect(shown()).not.toContain("Have the user");
  });

  test("what is the same for all of it is said once", async () => {
    const failure = { ok: false, code: "lium_unreachable", message: "No connection to Lium." } as const;
    const host = await money({ get_balance: failure, list_pods: failure, get_spending: failure });
    expect(shown().split("No connection to Lium.")).toHaveLength(2);
    host.answers = { get_balance: { balance_usd: 10 } };
    button("Try again").click();
    await settle(1);
    expect(shown()).toContain("$10.00");
  });

  test("says when nothing is left, and what is not known of it", async () => {
    await money({
      get_balance: { balance_usd: 10, burn_per_hour_usd: 2, billing_pods: 2, unpriced_pods: 1 },
      list_pods: {
        pods: [
          { pod_id: "a", status: "RUNNING", billing: true, price_per_hour_usd: 2 },
          { pod_id: "b", status: "RUNNING", billing: true, price_per_hour_usd: null },
        ],
        total: 150,
      },
      get_spending: { start_day: "2026-11-28", end_day: "2026-11-29", days: [], pods: [], total: 0, note: "Late." },
    });
    expect(shown()).toContain("4 h 59 min");
    expect(shown()).toContain("at most: not all is priced");
    expect(shown()).toContain("1 pod without a known price");
    expect(shown()).toContain("Only 2 of 150 pods were read.");
    expect(shown()).toContain("Nothing was charged in these days.");
  });

  test("what is not told is no zero", async () => {
    await money({ get_balance: { balance_usd: "much" }, list_pods: { pods: [] }, get_spending: { pods: [] } });
    expect(shown()).toContain("Lium does not say the balance");
    expect(shown()).toContain("What each day cost is not told.");
    expect(shown()).not.toContain("$0");
  });
});
