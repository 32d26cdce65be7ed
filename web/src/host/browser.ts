// The page in a browser, in place of a host: it speaks MCP (2026-07-28, without a session) to the server that sent it.
import { type Json, number, record, text } from "../data/shapes";
import { jsonOf } from "./conversation";
import { type Answer, answerOf, controls, type Ended, ended, type Host, refusal, trouble } from "./host";
import { askPerson } from "./questions";

const PROTOCOL = "2026-07-28";
const ABOUT = {
  "io.modelcontextprotocol/protocolVersion": PROTOCOL,
  "io.modelcontextprotocol/clientInfo": { name: "lium-page", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": { elicitation: { form: {} } },
};
const KEPT_AS = "lium-session";
const AGAIN = "Run lium-mcp dashboard again, and open the address that it prints.";
const OVER: Ended = { title: "This session is over", message: `It ended with its server. ${AGAIN}` };
const NO_ADDRESS: Ended = {
  title: "This page needs its whole address",
  message: `What stands behind the # opens it, once, and this tab has no session. ${AGAIN}`,
};
const UNREACHABLE = "The server on this machine does not answer.";
const START_MS = 15_000;
const LONGEST_CALL_MS = 12 * 60_000;
/** A server that asks again and again about one call is not answered for ever. */
const MOST_ROUNDS = 10;

/** Takes the one-time token out of the address, where nobody should see it. */
export function takeToken(): string | undefined {
  const once = new URLSearchParams(location.hash.slice(1)).get("token");
  if (once === null) return undefined;
  history.replaceState(null, "", location.pathname);
  return once;
}

/**
 * Opens the session of a one-time token, or goes on with the one that this tab has. Where there is none, `ended` says
 * why. Returns why the token opened nothing, if so: the tab's own session may be good all the same.
 */
export async function openSession(once: string | undefined): Promise<string | undefined> {
  const refused = once === undefined ? undefined : await enter(once);
  const none = refused === undefined ? NO_ADDRESS : { title: "This address does not open the page", message: refused };
  if (sessionStorage.getItem(KEPT_AS) === null) {
    // Why a session ended stands there until another address is tried.
    if (once !== undefined || ended.value === undefined) ended.value = none;
    return refused;
  }
  ended.value = undefined;
  const said = await authorized("/start.json", { signal: AbortSignal.timeout(START_MS) }).catch(() => undefined);
  if (said?.ok) controls.value = text(record(await said.json().catch(() => undefined)).controls);
  if (said?.status === 401 && refused !== undefined) ended.value = none;
  return refused;
}

/** Gets a session for a token, and keeps it; else why there is none, as the server says it. */
async function enter(once: string): Promise<string | undefined> {
  const answer = await fetch("/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token: once }),
    signal: AbortSignal.timeout(START_MS),
  }).catch(() => undefined);
  if (answer === undefined) return `${UNREACHABLE} ${AGAIN}`;
  const said = record(await answer.json().catch(() => undefined));
  const session = answer.ok ? text(said.token) : undefined;
  if (session === undefined) return text(said.error) ?? `The server did not take it (${answer.status}). ${AGAIN}`;
  sessionStorage.setItem(KEPT_AS, session);
  return undefined;
}

/** Fetches from the server with the session's token; a session that is over ends the page. */
export async function authorized(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${sessionStorage.getItem(KEPT_AS) ?? ""}`);
  const answer = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
  if (answer.status === 401) {
    sessionStorage.removeItem(KEPT_AS);
    ended.value = OVER;
  }
  return answer;
}

let nextId = 1;

/** One request of MCP, and the result in its answer. */
async function request(method: string, name: string, params: Json): Promise<Json> {
  const answer = await authorized("/mcp", {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": PROTOCOL,
      "mcp-method": method,
      "mcp-name": name,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: nextId++, method, params: { ...params, _meta: ABOUT } }),
    signal: AbortSignal.timeout(LONGEST_CALL_MS),
  });
  const body = await answer.text();
  const message = record(parsed(answer.headers.get("content-type")?.includes("event-stream") ? lastEvent(body) : body));
  if (message.error !== undefined) {
    const { code, message: said } = record(message.error);
    throw new Refused(number(code), text(said) ?? "It does not say why.");
  }
  if (message.result === undefined)
    throw new NoResult(`The server sent ${answer.status}, and nothing that is an answer.`);
  return record(message.result);
}

/** The protocol's error in place of a result. */
class Refused extends Error {
  constructor(
    readonly code: number | undefined,
    said: string,
  ) {
    super(said);
  }

  /** Whether the call surely came to no tool: the server could not read it, or knows no such thing. */
  get isBefore(): boolean {
    return this.code !== undefined && this.code >= -32602 && this.code <= -32600;
  }
}

/** Something came that is no answer. */
class NoResult extends Error {}

/** What a call came to that has no result. */
function failed(error: unknown, tool: string): Answer {
  if (ended.value !== undefined) return trouble("session_over", ended.value.message);
  if (error instanceof Refused)
    return refusal(error.isBefore ? "refused_by_server" : "unreadable", error.message, tool);
  if (error instanceof NoResult) return trouble("unreadable", error.message);
  return error instanceof DOMException && error.name === "TimeoutError"
    ? trouble("no_answer", "No answer came in time.")
    : trouble("unreachable", UNREACHABLE);
}

export const browser: Host = {
  kind: "browser",
  async call(tool, args): Promise<Answer> {
    try {
      let answers: Json = {};
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const result = await request("tools/call", tool, { name: tool, arguments: args, ...answers });
        if (result.resultType !== "input_required") return answerOf(result);
        const inputResponses: Record<string, Json> = {};
        for (const [key, asked] of Object.entries(record(result.inputRequests)))
          inputResponses[key] = await askPerson(record(asked));
        answers = {
          inputResponses,
          ...(result.requestState === undefined ? {} : { requestState: result.requestState }),
        };
      }
      return trouble("no_answer", "The server asked again and again. Nothing more was sent.");
    } catch (error) {
      return failed(error, tool);
    }
  },
  async read(uri) {
    try {
      return jsonOf(await request("resources/read", uri, { uri }));
    } catch {
      return undefined;
    }
  },
  tellModel() {
    // There is no model beside this page.
  },
  fill() {
    // A window of its own is as large as people make it.
  },
  openLink(url) {
    if (/^https?:/i.test(url)) window.open(url, "_blank", "noopener,noreferrer");
  },
};

/** The last message of a stream of events: what comes before it is progress. */
function lastEvent(stream: string): string {
  const events = stream.split(/\r?\n\r?\n/).map((event) =>
    event
      .split(/\r?\n/)
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trimStart())
      .join("\n"),
  );
  return events.findLast((data) => /"(result|error)"\s*:/.test(data)) ?? "";
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
