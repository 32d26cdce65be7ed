// A host that shows pages, as small as one can be: the real bridge of such hosts around one frame. What MCP is about
// goes to the test, which has a client of our server.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

window.told = [];

/**
 * Shows the page of a tool in a frame, as hosts do: closed off, under the policy that the server asked for. Hosts that
 * do less than they should: `calls` is "none" (not advertised), "refused" or "unanswered"; `isSilent` greets nobody;
 * `isText` hands on the text of answers alone.
 */
window.show = async (tool, args, { calls, isSilent, isText, ...context }) => {
  const { tools } = await window.mcp("tools/list", {});
  const uri = tools.find((each) => each.name === tool)._meta.ui.resourceUri;
  const [page] = (await window.mcp("resources/read", { uri })).contents;
  const allowed = page._meta.ui.csp;
  const policy = [
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:",
    `connect-src ${allowed.connectDomains.join(" ") || "'none'"}`,
  ].join("; ");
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.style = "width: 100%; height: 240px; border: 0";
  document.body.append(frame);
  const bridge = new AppBridge(
    null,
    { name: "a-host", version: "1" },
    { ...(calls === "none" ? {} : { serverTools: {} }), serverResources: {}, updateModelContext: { text: {} }, openLinks: {} },
    { hostContext: { theme: "dark", displayMode: "inline", toolInfo: { tool: tools.find((each) => each.name === tool) }, ...context } },
  );
  bridge.oncalltool = async (params) => {
    if (calls === "refused") throw new Error("The person does not let it");
    if (calls === "unanswered") return new Promise(() => undefined);
    return window.mcp("tools/call", params);
  };
  bridge.onreadresource = (params) => window.mcp("resources/read", params);
  bridge.onupdatemodelcontext = async (params) => {
    window.told.push(params.content.map((block) => block.text).join(" "));
    return {};
  };
  bridge.onopenlink = async () => ({});
  bridge.onsizechange = ({ height }) => { frame.style.height = `${height}px`; };
  const ready = new Promise((resolve) => { bridge.oninitialized = resolve; });
  if (!isSilent) await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = page.text.replace("<head>", `<head><meta http-equiv="Content-Security-Policy" content="${policy}">`);
  if (isSilent) return;
  await ready;
  await bridge.sendToolInput({ arguments: args });
  const result = await window.mcp("tools/call", { name: tool, arguments: args });
  await bridge.sendToolResult(isText ? { content: result.content } : result);
};
