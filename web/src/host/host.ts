// What the page talks through, whether it stands in a conversation or in a browser: it calls tools, and tells what a
// person did. Everything above this file is the same in both places.
import { signal } from "@preact/signals";
import { type Json, record, records, text } from "../data/shapes";

/** What came of a tool call. `code` is the server's own (docs/troubleshooting.md), or one of `Trouble`. */
export type Answer =
  | { readonly ok: true; readonly data: Json }
  | { readonly ok: false; readonly code: string; readonly message: string };

/** Why a call did not reach a tool. */
export type Trouble =
  | "unreachable"
  | "session_over"
  | "refused_by_host"
  | "refused_by_server"
  | "no_answer"
  | "not_offered"
  | "unreadable";

export interface Host {
  readonly kind: "conversation" | "browser";
  call(tool: string, args: Json): Promise<Answer>;
  /** A resource of the server as JSON; undefined where it cannot be read. */
  read(uri: string): Promise<Json | undefined>;
  /** Tells the model what a person did here. Where there is no model, nothing. */
  tellModel(what: string): void;
  openLink(url: string): void;
  /** Lets the page fill the host's window, or stand in the conversation again. */
  fill(whole: boolean): void;
}

/** Whether the page fills the host's window, or could; undefined where it cannot. */
export const filling = signal<boolean | undefined>(undefined);

/** Whether the host lets the page make no calls: then it shows what the host brings, and nothing that would need one. */
export const muted = signal(false);

/** The tool call that the page was opened with, in a conversation. */
export interface Opening {
  readonly tool: string | undefined;
  readonly args: Json;
  /** Undefined before the tool has answered. */
  readonly answer: Answer | undefined;
}

/** Where the sandbox's clock and faults are turned, if this page may: the path before /clock and /faults. */
export const controls = signal<string | undefined>(undefined);

/** Why nothing can be called, and what to do about it. */
export interface Ended {
  readonly title: string;
  readonly message: string;
}

/** Set while nothing can be called. */
export const ended = signal<Ended | undefined>(undefined);

/** Reads the result of tools/call. */
export function answerOf(result: unknown): Answer {
  const given = record(result);
  const blocks = records(given.content).flatMap((block) =>
    block.type === "text" && typeof block.text === "string" ? [block.text] : [],
  );
  if (given.isError === true) {
    const said = blocks.join(" ").trim();
    // Hosts may leave out what is meant for programs; our sentences say it too, at their end.
    const code = text(record(record(given._meta)["lium-mcp/error"]).code) ?? /\(code: (\w+)\)\s*$/.exec(said)?.[1];
    return { ok: false, code: code ?? "failed", message: text(withoutCode(said, code)) ?? "The call failed." };
  }
  if (Object.keys(record(given.structuredContent)).length > 0) {
    return { ok: true, data: record(given.structuredContent) };
  }
  // Some hosts hand on the text alone; ours says the same as JSON, in one piece, however long.
  const told = [...blocks, blocks.join("")].map(jsonIn).find((data) => data !== undefined);
  if (told !== undefined) return { ok: true, data: told };
  if (Array.isArray(given.structuredContent)) return trouble("unreadable", "What came is no answer of a tool.");
  if (typeof given.structuredContent === "object" && given.structuredContent !== null) return { ok: true, data: {} };
  return trouble("unreadable", text(blocks.join(" ")) ?? "The answer had nothing in it.");
}

/** The JSON object that a text is; undefined where it is none. */
export function jsonIn(said: unknown): Json | undefined {
  try {
    const read: unknown = typeof said === "string" ? JSON.parse(said) : undefined;
    return typeof read === "object" && read !== null && !Array.isArray(read) ? record(read) : undefined;
  } catch {
    return undefined;
  }
}

export function trouble(code: Trouble, message: string): Extract<Answer, { ok: false }> {
  return { ok: false, code, message };
}

/** What a call comes to that was refused before it came to a tool, by the error of the protocol or the host. */
export function refusal(code: Trouble, said: string, tool: string): Answer {
  return /\b(no|unknown) tool\b/i.test(said)
    ? trouble("not_offered", `Its settings leave out ${tool}.`)
    : trouble(code, said);
}

/** What a call comes to where the host lets the page make none. */
export const NO_CALLS = trouble(
  "refused_by_host",
  "The program that shows this page lets it make no calls: it shows what was answered, and stays as it is. Ask for more in the conversation.",
);

/** The code stands at the end of our sentences for models; people see it set apart. */
function withoutCode(said: string, code: string | undefined): string {
  return code === undefined ? said : said.replace(`(code: ${code})`, "").trim();
}
