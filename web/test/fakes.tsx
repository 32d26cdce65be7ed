// What stands around the page in tests: a host that answers as told, and time that is turned.
import { render } from "preact";
import { afterEach, beforeEach, vi } from "vitest";
import { App } from "../src/app";
import { notices, underWay } from "../src/data/actions";
import { asleep, begin } from "../src/data/readings";
import { policy } from "../src/data/server";
import type { Json } from "../src/data/shapes";
import { type Answer, ended, type Host, muted } from "../src/host/host";
import { failedOpening, openPod, view } from "../src/navigation";
import { shownQuote, wanted } from "../src/views/market/market_readings";
import { spentDays } from "../src/views/money/money_readings";

export interface FakeHost extends Host {
  readonly calls: { tool: string; args: Json }[];
  readonly told: string[];
  /** What each tool answers: its content, or a whole answer. */
  answers: Record<string, Json | Answer | undefined>;
}

export function fakeHost(answers: FakeHost["answers"] = {}, kind: Host["kind"] = "browser"): FakeHost {
  const host: FakeHost = {
    kind,
    calls: [],
    told: [],
    answers,
    call(tool, args) {
      host.calls.push({ tool, args });
      const answer = host.answers[tool] ?? {};
      return Promise.resolve("ok" in answer ? (answer as Answer) : { ok: true, data: answer as Json });
    },
    read: () => Promise.resolve(undefined),
    tellModel: (what) => void host.told.push(what),
    openLink: () => undefined,
    fill: () => undefined,
  };
  return host;
}

let takeAway: (() => void) | undefined;

/** Lets time stand at an afternoon in each test of a file, until it is turned, and takes away what the test showed. */
export function turnTime(): void {
  beforeEach(() => {
    vi.useFakeTimers({ now: new Date("2026-11-29T16:00:00Z") });
  });
  afterEach(() => {
    leavePage();
    vi.useRealTimers();
  });
}

/** Takes the page away, and all that people and hosts have set there. */
export function leavePage(): void {
  takeAway?.();
  takeAway = undefined;
  view.value = "pods";
  openPod.value = undefined;
  failedOpening.value = undefined;
  wanted.value = {};
  shownQuote.value = undefined;
  spentDays.value = 7;
  policy.value = undefined;
  ended.value = undefined;
  muted.value = false;
  notices.value = [];
  underWay.value = new Map();
  asleep.value = false;
}

/** Shows the whole page on a host. */
export async function showPage(host: Host): Promise<void> {
  const root = document.createElement("div");
  document.body.append(root);
  render(<App host={host} />, root);
  const stop = begin(host);
  takeAway = () => {
    stop();
    render(null, root);
    root.remove();
  };
  await settle();
}

/** Lets what is due happen, and so many seconds pass. */
export async function settle(seconds = 0): Promise<void> {
  for (let i = 0; i < 10; i++) await vi.advanceTimersByTimeAsync(i === 0 ? seconds * 1000 + 50 : 20);
}

export function button(words: string): HTMLButtonElement {
  const found = [...document.querySelectorAll("button")].find(
    (each) => each.textContent?.trim() === words || each.getAttribute("aria-label") === words,
  );
  if (found === undefined) throw new Error(`There is no button "${words}"`);
  return found;
}

export function shown(): string {
  return document.body.textContent ?? "";
}
