// The page inside a host's frame: MCP Apps (protocol 2026-01-26), which is JSON-RPC over postMessage to the window above.
import { type Json, list, number, record, text, texts } from "../data/shapes";
import {
  type Answer,
  answerOf,
  filling,
  type Host,
  jsonIn,
  muted,
  NO_CALLS,
  type Opening,
  refusal,
  trouble,
} from "./host";

const PROTOCOL = "2026-01-26";
/** Longer than any tool of ours waits, and than a person takes to answer a question of the server. */
const LONGEST_CALL_MS = 15 * 60_000;
const ASIDE_MS = 15_000;

interface Pending {
  readonly settle: (result: Json) => void;
  readonly fail: (reason: Error) => void;
}

/** Nothing came in time: what was asked for may have been done all the same. */
class NoAnswer extends Error {}

export interface Conversation extends Host {
  /** Resolves once the host has answered; from then on openings and its context are told. */
  greet(): Promise<void>;
}

export function conversation(
  above: Window,
  onOpening: (opening: Opening) => void,
  onContext: (context: Json) => void,
): Conversation {
  const pending = new Map<number, Pending>();
  let nextId = 1;
  let abilities: Json = {};
  let context: Json = {};
  let tool: string | undefined;
  let args: Json = {};

  const send = (message: Json): void => above.postMessage({ jsonrpc: "2.0", ...message }, "*");

  function ask(method: string, params: Json, limitMs: number): Promise<Json> {
    const id = nextId++;
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => done(() => reject(new NoAnswer(`The host did not answer ${method}.`))), limitMs);
      const done = (then: () => void): void => {
        clearTimeout(limit);
        pending.delete(id);
        then();
      };
      pending.set(id, {
        settle: (result) => done(() => resolve(result)),
        fail: (reason) => done(() => reject(reason)),
      });
      send({ id, method, params });
    });
  }

  function takeContext(changed: Json): void {
    context = { ...context, ...changed };
    filling.value = texts(context.availableDisplayModes).includes("fullscreen")
      ? context.displayMode === "fullscreen"
      : undefined;
    takeTool(record(record(changed.toolInfo).tool).name);
    onContext(context);
  }

  /** Hosts name the tool in their context, beside its arguments, or not at all. */
  function takeTool(name: unknown): void {
    tool = text(name) ?? tool;
  }

  function told(method: string, params: Json): void {
    if (method === "ui/notifications/host-context-changed") takeContext(params);
    else if (method === "ui/notifications/tool-input") {
      args = record(params.arguments);
      takeTool(params.name ?? params.toolName);
      onOpening({ tool, args, answer: undefined });
    } else if (method === "ui/notifications/tool-result") onOpening({ tool, args, answer: answerOf(params) });
  }

  window.addEventListener("message", (event: MessageEvent<unknown>) => {
    if (event.source !== above) return;
    const message = record(event.data);
    if (message.jsonrpc !== "2.0") return;
    if (typeof message.method === "string") {
      if (message.id === undefined) told(message.method, record(message.params));
      else if (message.method === "ui/resource-teardown" || message.method === "ping")
        send({ id: message.id, result: {} });
      else send({ id: message.id, error: { code: -32601, message: "This page does not know that" } });
      return;
    }
    const waiting = typeof message.id === "number" ? pending.get(message.id) : undefined;
    if (message.error === undefined) waiting?.settle(record(message.result));
    else waiting?.fail(new Error(text(record(message.error).message) ?? "The host refused"));
  });

  async function greet(): Promise<void> {
    const hello = await ask(
      "ui/initialize",
      {
        appInfo: { name: "lium", version: "1" },
        appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
        protocolVersion: PROTOCOL,
      },
      LONGEST_CALL_MS,
    );
    abilities = record(hello.hostCapabilities);
    muted.value = abilities.serverTools === undefined;
    takeContext(record(hello.hostContext));
    send({ method: "ui/notifications/initialized", params: {} });
    tellSize(send, () => number(record(context.containerDimensions).maxHeight));
  }

  const host: Conversation = {
    kind: "conversation",
    greet,
    async call(name, callArgs): Promise<Answer> {
      muted.value = abilities.serverTools === undefined;
      if (muted.value) return NO_CALLS;
      try {
        return answerOf(await ask("tools/call", { name, arguments: callArgs }, LONGEST_CALL_MS));
      } catch (error) {
        const said = (error as Error).message;
        return error instanceof NoAnswer ? trouble("no_answer", said) : refusal("refused_by_host", said, name);
      }
    },
    async read(uri) {
      if (abilities.serverResources === undefined) return undefined;
      try {
        return jsonOf(await ask("resources/read", { uri }, ASIDE_MS));
      } catch {
        return undefined;
      }
    },
    tellModel(what) {
      if (abilities.updateModelContext === undefined) return;
      // The host may refuse; what was done is done all the same.
      ask("ui/update-model-context", { content: [{ type: "text", text: what }] }, ASIDE_MS).catch(() => undefined);
    },
    fill(whole) {
      ask("ui/request-display-mode", { mode: whole ? "fullscreen" : "inline" }, ASIDE_MS).then(
        ({ mode }) => takeContext({ displayMode: mode }),
        () => undefined,
      );
    },
    openLink(url) {
      ask("ui/open-link", { url }, ASIDE_MS).catch(() => undefined);
    },
  };
  return host;
}

/** The JSON that a resource holds. */
export function jsonOf(result: Json): Json | undefined {
  return jsonIn(record(list(result.contents)[0]).text);
}

/** Lets the host make its frame as high as the page, or as it allows: then the page is scrolled within. */
function tellSize(send: (message: Json) => void, mostHeight: () => number | undefined): void {
  let last = "";
  const tell = (): void => {
    const whole = Math.ceil(document.documentElement.getBoundingClientRect().height);
    const height = Math.min(whole, mostHeight() ?? whole);
    const width = Math.ceil(window.innerWidth);
    if (width === 0 || height === 0 || `${width} ${height}` === last) return;
    last = `${width} ${height}`;
    send({ method: "ui/notifications/size-changed", params: { width, height } });
  };
  new ResizeObserver(tell).observe(document.documentElement);
  tell();
}
