import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { nameView, restoreView, show, view } from "../src/navigation";

beforeEach(() => {
  view.value = "pods";
  history.replaceState(null, "", "/");
});
afterEach(() => vi.unstubAllGlobals());

test("a view that is chosen is a step of the history, and the same one again is none", () => {
  const before = history.length;
  show("market");
  show("market");
  expect(location.hash).toBe("#market");
  expect(history.length).toBe(before + 1);
});

test.each([
  ["#money", "money"],
  ["", "pods"],
  ["#elsewhere", "market"],
] as const)("the address %s shows %s", (hash, shown) => {
  view.value = "market";
  history.replaceState(null, "", `/${hash}`);
  restoreView();
  expect(view.value).toBe(shown);
});

test("the address names the view, once a token is out of it", () => {
  nameView();
  expect(location.hash).toBe("");
  view.value = "money";
  nameView();
  expect(location.hash).toBe("#money");
});

test("in a host's frame history is left alone", () => {
  vi.stubGlobal("parent", {});
  const before = history.length;
  show("market");
  expect([view.value, location.hash, history.length]).toEqual(["market", "", before]);
});
