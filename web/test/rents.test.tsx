import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { view } from "../src/navigation";
import { fakeHost, shown, showPage } from "./fakes";

let gone: (() => void) | undefined;

beforeEach(() => {
  vi.useFakeTimers({ now: new Date("2026-11-29T16:00:00Z") });
});
afterEach(() => {
  gone?.();
  vi.useRealTimers();
});

test("the rents of the ledger stand with the money, in words of who rents", async () => {
  const host = fakeHost();
  host.read = () =>
    Promise.resolve({
      rents: [
        { name: "train-a", status: "rented", asked_at: "2026-11-29T15:00:00Z", hours: 12, price_per_hour_usd: 1.5 },
        { name: "lost", status: "unknown", by_order: true },
        { name: {}, status: 7, hours: "x", asked_at: "soon" },
        null,
      ],
      note: "What the ledger has",
    });
  view.value = "money";
  gone = await showPage(host);
  for (const words of [
    "train-a",
    "Rented",
    "$1.500",
    "12 h",
    "Not settled",
    "by a standing order",
    "What the ledger has",
  ])
    expect(shown()).toContain(words);
});

test("where a host lets the page read no resources, there are none", async () => {
  view.value = "money";
  gone = await showPage(fakeHost({}, "conversation"));
  expect(shown()).not.toContain("from its ledger");
});
