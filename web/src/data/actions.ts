// Actions: tool calls that change something. A click is no consent: the server asks the person as it asks about a
// model's calls. What a person did here is told to the model, which would act on an old picture otherwise.
import { signal } from "@preact/signals";
import type { Answer, Host } from "../host/host";
import { refresh } from "./readings";
import type { Json } from "./shapes";

export interface Action {
  readonly tool: string;
  readonly args: Json;
  /** What it does, for the model: "set the removal of pod train-a (id ...) to 12 hours from now". */
  readonly did: string;
  /** What it touches: such readings are read again afterwards. */
  readonly touches: readonly string[];
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
/** What is under way, by tool and target: its buttons wait. */
export const underWay = signal<ReadonlySet<string>>(new Set());

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
  notices.value = [...notices.value, { kind, message, id }].slice(-MOST_NOTICES);
  // What failed stays until somebody has read it.
  if (kind !== "failed") setTimeout(() => dismiss(id), SHOWN_MS);
}

export async function act(host: Host, action: Action, target: string): Promise<Answer | undefined> {
  const busy = `${action.tool} ${target}`;
  if (underWay.value.has(busy)) return undefined;
  underWay.value = new Set([...underWay.value, busy]);
  try {
    const answer = await host.call(action.tool, action.args);
    if (answer.ok) {
      say("done", action.done(answer.data));
      host.tellModel(
        `On the Lium page the person ${action.did}. The server answered: ${JSON.stringify(answer.data).slice(0, LONGEST_TOLD)}`,
      );
    } else {
      const no = NOT_AGREED.has(answer.code);
      say(no ? "refused" : "failed", no ? "Nothing was done: you did not agree." : answer.message);
      host.tellModel(
        `On the Lium page the person tried what would have ${action.did}. It was not done: ${answer.message}`,
      );
    }
    return answer;
  } finally {
    underWay.value = new Set([...underWay.value].filter((other) => other !== busy));
    // Also after a failure: some of it may have happened.
    void refresh(...action.touches);
  }
}

const NOT_AGREED = new Set(["not_confirmed", "declined", "cancelled"]);
