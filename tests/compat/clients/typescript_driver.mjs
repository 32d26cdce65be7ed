// A visit with the TypeScript SDK, which is found under the directory named as the argument.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "driver.mjs"));
const load = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/client/${path}`)).href);
const { Client } = await load("index.js");
const { StdioClientTransport } = await load("stdio.js");
const { SSEClientTransport } = await load("sse.js");
const { StreamableHTTPClientTransport } = await load("streamableHttp.js");

const target = JSON.parse(readFileSync(0, "utf8"));
const [command, ...args] = target.command;
const requestInit = { headers: target.headers };
const transport = {
  stdio: () => new StdioClientTransport({ command, args, env: target.env, stderr: "ignore" }),
  sse: () => new SSEClientTransport(new URL(target.url), { requestInit }),
  http: () => new StreamableHTTPClientTransport(new URL(target.url), { requestInit }),
}[target.transport]();

const client = new Client({ name: "visit", version: "1.0.0" });
await client.connect(transport);
const progress = [];
const onprogress = ({ message }) => progress.push(message);
const report = {
  protocol: transport.protocolVersion ?? null,
  server: client.getServerVersion().name,
  instructions: client.getInstructions(),
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  prompts: (await client.listPrompts()).prompts.map((prompt) => prompt.name),
  resources: (await client.listResources()).resources.map((resource) => resource.uri),
  balance: (await client.callTool({ name: "get_balance", arguments: {} })).structuredContent,
  rented: (await client.callTool({ name: "rent_pod", arguments: target.rent }, undefined, { onprogress })).structuredContent,
};
const failure = await client.callTool({ name: "get_pod", arguments: { pod: "nobody" } });
await client.callTool({ name: "remove_pod", arguments: { pod: "train", wait_seconds: 0 } });
await client.close();
console.log(JSON.stringify({ ...report, progress, failure: { isError: failure.isError, text: failure.content[0].text } }));
