// Builds the page as one file: its one script and its one style stand inside it, because the server sends both under a
// policy that names them by their hashes, and because a host shows the page from a text, without an address.
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vitest/config";

const LARGEST_BYTES = 300 * 1024;

function oneFile(): Plugin {
  return {
    name: "one-file",
    enforce: "post",
    generateBundle(_options, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") this.error("index.html was not built");
      let script = "";
      let style = "";
      for (const [name, part] of Object.entries(bundle)) {
        if (name === "index.html") continue;
        if (part.type === "chunk") script += part.code;
        else if (name.endsWith(".css")) style += part.source;
        else this.error(`${name} has no place in one file`);
        delete bundle[name];
      }
      // Inside a page a script ends at the first of these, also within a string.
      const safe = script.trim().replaceAll(/<(?=\/script|!--)/gi, "\\x3c");
      const html = String(page.source)
        .replace(/\s*<script type="module"[^>]*><\/script>/, "")
        .replace(/\s*<link rel="stylesheet"[^>]*>/, "")
        .replace("</head>", () => `  <style>${style.trim()}</style>\n  </head>`)
        .replace("</body>", () => `  <script type="module">${safe}</script>\n  </body>`);
      const size = Buffer.byteLength(html);
      if (size > LARGEST_BYTES) this.error(`The page has ${size} bytes; ${LARGEST_BYTES} is the most`);
      delete bundle["index.html"];
      this.emitFile({ type: "asset", fileName: "page.html", source: html });
    },
  };
}

export default defineConfig({
  plugins: [oneFile()],
  build: {
    outDir: process.env.PAGE_DIR ?? fileURLToPath(new URL("../lium_mcp/page", import.meta.url)),
    // The folder is a part of the Python package too.
    emptyOutDir: false,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    reportCompressedSize: false,
  },
  // Minutes are turned in some, on machines that have other work too.
  test: { environment: "happy-dom", include: ["test/**/*.test.{ts,tsx}"], testTimeout: 30_000 },
});
