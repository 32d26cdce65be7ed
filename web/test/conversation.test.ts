import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Json } from "../src/data/shapes";
import { type Conversation, conversation } from "../src/host/conversation";
import type { Opening } from "../src/host/host";

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Json;
  readonly result?: Json;
  readonly error?: Json;
}

let sent: Message[] = [];
let openings: Opening[] = [];
let contexts: Json[] = [];
let answers: Record<string, (params: Json) => Partial<Message>> = {};
let host: Conversation;
let above: Window;

/** A window above: it keeps what it gets, and answers as told. */
function windowAbove(): Window {
  return {
    postMessage(message: Message) {
      sent.push(message);
      const answer = message.method === undefined ? undefined : answers[message.method];
      if (message.id !== undefined && answer !== undefined) say({ id: message.id, ...answer(message.params ?? {}) });
    },
  } as unknown as Window;
}

function say(message: Message, source: unknown = above): void {
  const event = new MessageEvent("message", { data: { jsonrpc: "2.0", ...message } });
  Object.defineProperty(event, "source", { value: source });
  window.dispatchEvent(event);
}

beforeEach(async () => {
  sent = [];
  openings = [];
  contexts = [];
  answers = {
    "ui/initialize": () => ({
      result: {
        hostCapabilities: { updateModelContext: {}, serverResources: {}, serverTools: {} },
        hostContext: { theme: "dark" },
      },
    }),
  };
  above = windowAbove();
  host = conversation(
    above,
    (opening) => openings.push(opening),
    (context) => contexts.push(context),
  );
  await host.greet();
});
afterEach(() => document.body.replaceChildren());

test("it greets the host, and takes its context", () => {
  expect(sent.map(({ method }) => method).slice(0, 2)).toEqual(["ui/initialize", "ui/notifications/initialized"]);
  expect(contexts).toEqual([{ theme: "dark" }]);
  say({ method: "ui/notifications/host-context-changed", params: { theme: "light" } });
  expect(contexts.at(-1)).toEqual({ theme: "light" });
});

test("the tool that opened it is known with its arguments and its result", () => {
  say({ method: "ui/notifications/host-context-changed", params: { toolInfo: { tool: { name: "get_pod" } } } });
  say({ method: "ui/notifications/tool-input", params: { arguments: { pod: "a" } } });
  say({ method: "ui/notifications/tool-result", params: { content: [{ type: "text", text: '{"outcome":"done"}' }] } });
  expect(openings).toEqual([
    { tool: "get_pod", args: { pod: "a" }, answer: undefined },
    { tool: "get_pod", args: { pod: "a" }, answer: { ok: true, data: { outcome: "done" } } },
  ]);
});

test("a host may name the tool beside its arguments", () => {
  say({ method: "ui/notifications/tool-input", params: { name: "list_gpus", arguments: {} } });
  say({ method: "ui/notifications/host-context-changed", params: { theme: "light" } });
  say({ method: "ui/notifications/tool-result", params: { isError: true, content: [] } });
  expect(openings.at(-1)).toMatchObject({ tool: "list_gpus", answer: { ok: false } });
});

test("an answer that comes as text alone is read, however long it is, and what else is said beside it", () => {
  const data = { pods: Array.from({ length: 60 }, (_, i) => ({ pod_id: `id-${i}`, name: `a pod  of many: ${i}` })) };
  const content = [
    { type: "text", text: "Here are your pods:" },
    { type: "text", text: JSON.stringify(data) },
  ];
  say({ method: "ui/notifications/tool-result", params: { content } });
  say({ method: "ui/notifications/tool-result", params: { content, structuredContent: {} } });
  expect(openings.map(({ answer }) => answer)).toEqual([
    { ok: true, data },
    { ok: true, data },
  ]);
});

test("a host that lets pages call no tools is asked for none", async () => {
  answers["ui/initialize"] = () => ({ result: { hostCapabilities: {} } });
  await host.greet();
  sent = [];
  expect(await host.call("list_pods", {})).toMatchObject({ ok: false, code: "refused_by_host" });
  expect(sent).toEqual([]);
});

test("calls go through the host, and its refusal is an answer", async () => {
  answers["tools/call"] = () => ({ result: { structuredContent: { total: 1 } } });
  expect(await host.call("list_pods", {})).toEqual({ ok: true, data: { total: 1 } });
  answers["tools/call"] = () => ({ error: { code: -32000, message: "Not allowed" } });
  expect(await host.call("list_pods", {})).toEqual({ ok: false, code: "refused_by_host", message: "Not allowed" });
});

test("a call that the host never answers may have been made", async () => {
  vi.useFakeTimers();
  const answer = host.call("remove_pod", {});
  await vi.advanceTimersByTimeAsync(16 * 60_000);
  expect(await answer).toMatchObject({ ok: false, code: "no_answer" });
  vi.useRealTimers();
});

test("a failure of a tool keeps its code, which people see set apart", async () => {
  answers["tools/call"] = () => ({
    result: {
      isError: true,
      content: [{ type: "text", text: "Not now. (code: busy)" }],
      _meta: { "lium-mcp/error": { code: "busy" } },
    },
  });
  expect(await host.call("remove_pod", {})).toEqual({ ok: false, code: "busy", message: "Not now." });
  answers["tools/call"] = () => ({
    result: { isError: true, content: [{ type: "text", text: "No key. (code: api_key_missing)" }] },
  });
  expect(await host.call("remove_pod", {})).toEqual({ ok: false, code: "api_key_missing", message: "No key." });
});

test("what a person did is told to the model; resources are read; the end is agreed to", async () => {
  answers["resources/read"] = () => ({ result: { contents: [{ text: '{"read_only":true}' }] } });
  expect(await host.read("lium://policy")).toEqual({ read_only: true });
  host.tellModel("the person removed it");
  expect(sent.at(-1)).toMatchObject({
    method: "ui/update-model-context",
    params: { content: [{ type: "text", text: "the person removed it" }] },
  });
  say({ id: 77, method: "ui/resource-teardown", params: {} });
  expect(sent.at(-1)).toMatchObject({ id: 77, result: {} });
});

test("other windows are not listened to, and nonsense breaks nothing", () => {
  say({ method: "ui/notifications/tool-result", params: { structuredContent: {} } }, window);
  for (const data of [null, 5, "x", [], { jsonrpc: "1.0" }]) {
    const event = new MessageEvent("message", { data });
    Object.defineProperty(event, "source", { value: above });
    window.dispatchEvent(event);
  }
  say({ id: 999, result: {} });
  say({ id: 5, method: "tools/list" });
  expect(sent.at(-1)).toMatchObject({ id: 5, error: { code: -32601 } });
  expect(openings).toEqual([]);
});

test("it asks for no more height than the host has", async () => {
  const height = vi.spyOn(document.documentElement, "getBoundingClientRect");
  height.mockReturnValue({ height: 4586.2 } as DOMRect);
  const asked = (): unknown =>
    sent.findLast(({ method }) => method === "ui/notifications/size-changed")?.params?.height;
  await host.greet();
  expect(asked()).toBe(4587);
  answers["ui/initialize"] = () => ({ result: { hostContext: { containerDimensions: { maxHeight: 800 } } } });
  await host.greet();
  expect(asked()).toBe(800);
  height.mockRestore();
});
