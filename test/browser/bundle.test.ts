/** `minigpt4/browser` runs in a page: nothing of Node gets into a bundle of it. */
import { isBuiltin } from "node:module";
import { join } from "node:path";
import { build } from "vite";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");

interface Bundle {
  /** Modules of Node, each with the module that imports it. */
  readonly node: readonly string[];
  readonly packages: readonly string[];
  readonly code: string;
}

/** Bundles an entry for browsers, as an application does. */
async function bundle(entry: string): Promise<Bundle> {
  const node: string[] = [];
  const packages = new Set<string>();
  const result = await build({
    configFile: false,
    root,
    logLevel: "silent",
    plugins: [
      {
        name: "list-imports",
        enforce: "pre",
        resolveId(source, importer) {
          if (isBuiltin(source)) node.push(`${source} in ${importer}`);
          return null;
        },
        moduleParsed({ id }) {
          const name = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id)?.[1];
          if (name) packages.add(name);
        },
      },
    ],
    build: { write: false, minify: false, lib: { entry: join(root, entry), formats: ["es"], fileName: "bundle" } },
  });
  const [output] = [result].flat();
  if (!output || !("output" in output)) throw new Error("no bundle");
  const code = output.output.map((file) => (file.type === "chunk" ? file.code : "")).join("\n");
  return { node, packages: [...packages].sort(), code };
}

test("imports no module of Node, and leaves ONNX Runtime Web to the caller", async () => {
  const { node, packages, code } = await bundle("src/browser/index.ts");
  expect(node).toEqual([]);
  expect(packages).toEqual(["@bufbuild/protobuf", "@huggingface/tokenizers", "lru-cache", "zod"]);
  expect(code).not.toMatch(/^import |\brequire\(/m);
});

test("the side of a worker that runs in the page needs no package", async () => {
  expect((await bundle("src/browser/worker.ts")).packages).toEqual([]);
});

test("such imports are found where there are some", async () => {
  const { node } = await bundle("src/files/json-file.ts");
  expect(node.length).toBeGreaterThan(0);
});
