import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { browser, openSession, takeToken } from "../src/host/browser";
import { controls, ended } from "../src/host/host";
import { asked } from "../src/host/questions";

interface Request {
  readonly path: string;
  readonly headers: Headers;
  readonly body: { readonly params?: object };
}

let requests: Request[] = [];

/** The server at the wire: what it answers to each path. */
function server(answer: (request: Request) => Response): void {
  requests = [];
  vi.stubGlobal("fetch", (path: string, init: RequestInit = {}) => {
    const request = { path, headers: new Headers(init.headers), body: init.body ? JSON.parse(String(init.body)) : {} };
    requests.push(request);
    return Promise.resolve(request).then(answer);
  });
}

const json = (value: unknown, status = 200): Response =>
  new Response(JSON.stringify(value), { status, headers: { "content-type": "application/json" } });
const result = (value: unknown): Response => json({ jsonrpc: "2.0", id: 1, result: value });

beforeEach(() => {
  sessionStorage.clear();
  ended.value = undefined;
  asked.value = [];
  history.replaceState(null, "", "/#token=once");
});
afterEach(() => vi.unstubAllGlobals());

test("the one-time token leaves the address, and becomes a session", async () => {
  server(({ path }) => (path === "/token" ? json({ token: "session" }) : json({ controls: "/_sandbox" })));
  const once = takeToken();
  expect(location.href).not.toContain("once");
  expect(await openSession(once)).toBeUndefined();
  expect(ended.value).toBeUndefined();
  expect(requests[0]?.body).toEqual({ token: "once" });
  expect(requests[1]?.headers.get("authorization")).toBe("Bearer session");
  expect(controls.value).toBe("/_sandbox");
});

const USED = "This address has been used: it opens the page once.";

test("an address that was used, no address, and a session that is over are three things", async () => {
  server(({ path }) => (path === "/token" ? json({ error: USED }, 401) : json({}, 401)));
  expect(await openSession("once")).toBe(USED);
  expect(ended.value).toEqual({ title: "This address does not open the page", message: USED });
  ended.value = undefined;
  await openSession(undefined);
  expect(ended.value).toMatchObject({ title: "This page needs its whole address" });
  ended.value = undefined;
  sessionStorage.setItem("lium-session", "old");
  await openSession(undefined);
  expect(ended.value).toMatchObject({ title: "This session is over" });
  await openSession(undefined);
  expect(ended.value).toMatchObject({ title: "This session is over" });
});

test("an address that was used leaves the tab the session that it has, unless that is over", async () => {
  server(({ path }) => (path === "/token" ? json({ error: USED }, 401) : json({})));
  sessionStorage.setItem("lium-session", "kept");
  expect(await openSession("once")).toBe(USED);
  expect(ended.value).toBeUndefined();
  expect(sessionStorage.getItem("lium-session")).toBe("kept");
  server(() => json({ error: USED }, 401));
  await openSession("once");
  expect(ended.value?.message).toBe(USED);
});

test("a new address opens a page that is closed", async () => {
  server(({ path }) => (path === "/token" ? json({ token: "new" }) : json({})));
  ended.value = { title: "This session is over", message: "" };
  expect(await openSession("fresh")).toBeUndefined();
  expect(ended.value).toBeUndefined();
  expect(requests.at(-1)?.headers.get("authorization")).toBe("Bearer new");
});

test.each([
  [
    "does not answer",
    (): Response => {
      throw new TypeError("Failed to fetch");
    },
  ],
  ["did not take it (500)", (): Response => new Response("<html>", { status: 500 })],
])("where the server %s, it says so", async (words, answer) => {
  server(answer);
  await openSession("once");
  expect(ended.value?.message).toContain(words);
  expect(ended.value?.message).toContain("lium-mcp dashboard");
});

test("a session that is over ends the page", async () => {
  server(() => json({}, 401));
  expect(await browser.call("list_pods", {})).toMatchObject({ ok: false, code: "session_over" });
  expect(ended.value?.title).toBe("This session is over");
  expect(ended.value?.message).toContain("lium-mcp dashboard");
});

test("a call says what it is in its headers too, and reads the answer", async () => {
  server(() => result({ resultType: "complete", structuredContent: { total: 0 }, content: [] }));
  expect(await browser.call("list_pods", { limit: 5 })).toEqual({ ok: true, data: { total: 0 } });
  const { headers, body } = requests[0] as Request;
  expect([headers.get("mcp-method"), headers.get("mcp-name")]).toEqual(["tools/call", "list_pods"]);
  expect(body).toMatchObject({ method: "tools/call", params: { name: "list_pods", arguments: { limit: 5 } } });
});

test("an answer as a stream of events is its last message", async () => {
  const events = [
    'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
    'data: {"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"a":1},"content":[]}}\n',
  ].join("\n\n");
  server(() => new Response(events, { headers: { "content-type": "text/event-stream" } }));
  expect(await browser.call("get_pod", {})).toEqual({ ok: true, data: { a: 1 } });
});

const ASKS = {
  resultType: "input_required",
  requestState: "sealed",
  inputRequests: {
    q: {
      method: "elicitation/create",
      params: {
        message: "Remove it?",
        requestedSchema: { properties: { confirm: { type: "boolean" } }, required: ["confirm"] },
      },
    },
  },
};

test.each([
  ["yes", { action: "accept", content: { confirm: true } }],
  ["no", { action: "decline" }],
])("a question is put to the person, and %s goes back with the sealed state", async (_word, answer) => {
  server(({ body }) =>
    "inputResponses" in (body.params ?? {})
      ? result({ structuredContent: { outcome: "done" }, content: [] })
      : result(ASKS),
  );
  const call = browser.call("remove_pod", { pod: "id" });
  await vi.waitFor(() => expect(asked.value).toHaveLength(1));
  expect(asked.value[0]?.message).toBe("Remove it?");
  asked.value[0]?.settle(answer);
  expect(await call).toEqual({ ok: true, data: { outcome: "done" } });
  expect(requests[1]?.body).toMatchObject({ params: { inputResponses: { q: answer }, requestState: "sealed" } });
  expect(asked.value).toEqual([]);
});

test("what is no form is not agreed to, and a server that asks for ever is left", async () => {
  server(() => result({ ...ASKS, inputRequests: { q: { method: "sampling/createMessage", params: {} } } }));
  expect(await browser.call("remove_pod", {})).toMatchObject({ ok: false, code: "no_answer" });
  expect(requests[1]?.body).toMatchObject({ params: { inputResponses: { q: { action: "cancel" } } } });
  expect(requests.length).toBeLessThanOrEqual(10);
});

test.each([
  [
    "nothing listens",
    "unreachable",
    "does not answer",
    (): Response => {
      throw new TypeError("Failed to fetch");
    },
  ],
  [
    "nothing comes in time",
    "no_answer",
    "No answer came in time",
    (): Response => {
      throw new DOMException("signal timed out", "TimeoutError");
    },
  ],
  ["the answer is no JSON", "unreadable", "502", (): Response => new Response("<html>", { status: 502 })],
  ["the answer has no result", "unreadable", "200", (): Response => json([])],
  [
    "the server cannot read it",
    "refused_by_server",
    "expired",
    (): Response => json({ error: { code: -32602, message: "Invalid or expired requestState" } }, 400),
  ],
  [
    "the server fails",
    "unreadable",
    "Internal",
    (): Response => json({ error: { code: -32603, message: "Internal error" } }, 500),
  ],
  [
    "the server has no such tool",
    "not_offered",
    "Its settings leave out list_pods.",
    (): Response => json({ error: { code: -32602, message: "There is no tool of that name; tools/list names them" } }),
  ],
])("when %s, the call says so (%s)", async (_what, code, words, answer) => {
  server(answer);
  const came = await browser.call("list_pods", {});
  expect(came).toMatchObject({ ok: false, code, message: expect.stringContaining(words) });
});
