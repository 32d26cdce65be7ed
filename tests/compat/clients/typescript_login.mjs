// A login with the TypeScript SDK, which is found under the directory named as the argument. It says where its user has
// to go, reads where they were sent back to, and calls a tool.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "driver.mjs"));
const load = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/client/${path}`)).href);
const { Client } = await load("index.js");
const { StreamableHTTPClientTransport } = await load("streamableHttp.js");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => (await lines.next()).value;
const { url, redirect, document } = JSON.parse(await read());
const kept = {};
const provider = {
  redirectUrl: redirect,
  clientMetadataUrl: document ?? undefined,
  clientMetadata: { client_name: "TypeScript", redirect_uris: [redirect], token_endpoint_auth_method: "none" },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  redirectToAuthorization: (address) => console.log(address.href),
};
const connect = async () => {
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  const client = new Client({ name: "login", version: "1.0.0" });
  try {
    await client.connect(transport);
  } catch (error) {
    if (kept.tokens) throw error;
    const back = new URL(await read()).searchParams;
    await transport.finishAuth(back.get("code"), back.get("iss") ?? undefined);
    return connect();
  }
  return client;
};
const client = await connect();
const balance = (await client.callTool({ name: "get_balance", arguments: {} })).structuredContent;
kept.tokens = { ...kept.tokens, access_token: "lmt_expired" };
const renewed = (await client.callTool({ name: "get_balance", arguments: {} })).structuredContent;
await client.close();
console.log(JSON.stringify({ client: kept.client.client_id, balance, renewed }));
process.exit(0);
