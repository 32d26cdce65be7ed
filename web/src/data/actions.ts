// Actions: tool calls that change something. A click is no consent: the server asks the person as it asks about a
// model's calls. What a person did here is told to the model, which would act on an old picture otherwise.
import { signal } from "@preact/signals";
import type { Answer, Host } from "../host/host";
import { readable } from "./answers";
import { forPeople } from "./people";
import { refreshAfterAct } from "./readings";
import { type Json, text } from "./shapes";

export interface Action {
  readonly tool: string;
  readonly args: Json;
  /** What it is, for people: "Remove train-a". Stands while it is under way, and before what came of it. */
  readonly title: string;
  /** What it does, for the model: "set the removal of pod train-a (id ...) to 12 hours from now". */
  readonly did: string;
  /** The sentence that people read once it is done. */
  readonly done: (data: Json) => string;
}

export interface Notice {
  readonly kind: "done" | "refused" | "failed";
  readonly message: string;
  readonly id: number;
}

/** What came of the newest actions, newest last. */
export const notices = signal<readonly Notice[]>([]);
/** What is under way, by tool and target, with its title: its buttons wait. */
export const underWay = signal<ReadonlyMap<string, string>>(new Map());

const MOST_NOTICES = 4;
const SHOWN_MS = 15_000;
/** A model needs the gist, and pays for every word. */
const LONGEST_TOLD = 2_000;
let nextId = 1;

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function say(kind: Notice["kind"], message: string): void {
  const id = nextId++;
  // The same again stands once.
  const others = notices.value.filter((other) => other.kind !== kind || other.message !== message);
  notices.value = [...others, { kind, message, id }].slice(-MOST_NOTICES);
  // What failed stays until somebody has read it.
  if (kind !== "failed") setTimeout(() => dismiss(id), SHOWN_MS);
}

export async function act(host: Host, action: Action, target: string): Promise<Answer | undefined> {
  const busy = `${action.tool} ${target}`;
  if (underWay.value.has(busy)) return undefined;
  underWay.value = new Map([...underWay.value, [busy, action.title]]);
  try {
    const answer = readable(action.tool, action.args, await host.call(action.tool, action.args));
    if (answer.ok && NOT_DONE.has(String(answer.data.outcome))) {
      const why = forPeople(text(answer.data.next) ?? "Lium says no more.");
      say("failed", `${action.title}: It was not done. ${why}`);
      host.tellModel(
        `On the Lium page the person tried what would have ${action.did}. It was not done. ${gist(answer.data)}`,
      );
    } else if (answer.ok) {
      say("done", action.done(answer.data));
      host.tellModel(`On the Lium page the person ${action.did}. ${gist(answer.data)}`);
    } else if (NO_WORD.has(answer.code)) {
      const unknown = `Whether it took effect is not known: ${answer.message} See how it stands before you try again.`;
      say("failed", `${action.title}: ${unknown}`);
      host.tellModel(
        `On the Lium page the person tried what would have ${action.did}. Whether it took effect is not known: ${answer.message}`,
      );
    } else {
      const no = NOT_AGREED.has(answer.code);
      // In a browser this page itself has asked. What a host has asked, or answered by itself, only the server can tell.
      const said = forPeople(answer.message);
      const words = host.kind === "browser" ? "you did not agree." : `no yes came. ${said}`;
      const why = no ? `Nothing was done: ${words}` : said;
      say(no ? "refused" : "failed", `${action.title}: ${why}`);
      host.tellModel(
        `On the Lium page the person tried what would have ${action.did}. It was not done: ${answer.message}`,
      );
    }
    return answer;
  } finally {
    underWay.value = new Map([...underWay.value].filter(([other]) => other !== busy));
    // Also after a failure: some of it may have happened.
    refreshAfterAct();
  }
}

function gist(data: Json): string {
  return `The server answered: ${JSON.stringify(data).slice(0, LONGEST_TOLD)}`;
}

/** Outcomes in which nothing was done. */
const NOT_DONE = new Set(["failed", "dry_run"]);
/** The call may have reached its tool, and nobody says what came of it. */
const NO_WORD = new Set(["unreadable", "no_answer", "unreachable"]);
const NOT_AGREED = new Set(["not_confirmed", "declined", "cancelled"]);
