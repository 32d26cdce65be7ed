import { expect, test } from "vitest";
import { view } from "../src/navigation";
import { fakeHost, shown, showPage, turnTime } from "./fakes";

turnTime();

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
  await showPage(host);
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
  await showPage(fakeHost({}, "conversation"));
  expect(shown()).not.toContain("from its ledger");
});
