// What stands around the page in tests: a host that answers as told, and time that is turned.
import { render } from "preact";
import { vi } from "vitest";
import { App } from "../src/app";
import { notices, underWay } from "../src/data/actions";
import { asleep, begin, newestAt } from "../src/data/readings";
import { policy } from "../src/data/server";
import type { Json } from "../src/data/shapes";
import { type Answer, ended, type Host, muted } from "../src/host/host";
import { failedOpening, openPod, view } from "../src/navigation";
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

/** Shows the whole page on a host. Returns what takes it away again. */
export async function showPage(host: Host): Promise<() => void> {
  const root = document.createElement("div");
  document.body.append(root);
  render(<App host={host} />, root);
  const stop = begin(host);
  await settle();
  return () => {
    stop();
    render(null, root);
    root.remove();
    view.value = "pods";
    openPod.value = undefined;
    failedOpening.value = undefined;
    spentDays.value = 7;
    policy.value = undefined;
    ended.value = undefined;
    muted.value = false;
    notices.value = [];
    underWay.value = new Map();
    newestAt.value = undefined;
    asleep.value = false;
  };
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
