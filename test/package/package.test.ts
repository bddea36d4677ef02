/** The package as users get it: packed, installed into an empty folder, and used through the command line and the library. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { image } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const root = join(import.meta.dirname, "..", "..");
const folder = temporaryFolder();
const model = tinyModel(folder);
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

interface PackedFile {
  readonly path: string;
  readonly size: number;
}

let tarball: string;
let files: readonly PackedFile[];

beforeAll(() => {
  // `npm pack` builds the package first.
  const output = npm(["pack", "--json", "--pack-destination", folder], root);
  const [packed] = JSON.parse(output.slice(output.indexOf("[\n")));
  tarball = join(folder, packed.filename);
  files = packed.files;
  console.log(`${packed.filename}: ${packed.size} bytes, ${packed.unpackedSize} unpacked, ${files.length} files`);
});

function npm(args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}): string {
  return execute(process.platform === "win32" ? "npm.cmd" : "npm", args, cwd, env);
}

/** Runs a program; its standard output. @throws Error with all output if it fails */
function execute(file: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}): string {
  const shell = file.endsWith(".cmd");
  return execFileSync(file, args, { cwd, env: { ...process.env, ...env }, encoding: "utf8", stdio: "pipe", shell });
}

test("the tarball contains what runs, and nothing that does not", () => {
  const paths = files.map(({ path }) => path);
  for (const path of [
    "dist/cli/main.js",
    "dist/index.d.ts",
    "dist/web/index.html",
    "models/nano/config.json",
    "recipes/nano.yaml",
    "examples/images/cat.jpg",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
  ]) {
    expect(paths).toContain(path);
  }
  expect(paths.filter((path) => /\.map$|^docs\/images|^src\/|^test\/|^web\//.test(path))).toEqual([]);
  // Nothing is left of an earlier build.
  const built = paths.filter((path) => /^dist\/(?!web\/).*\.js$/.test(path));
  const sources = built.map((path) => path.replace(/^dist/, "src").replace(/\.js$/, ".ts"));
  for (const source of sources) expect(() => readFileSync(join(root, source))).not.toThrow();
});

describe.each([
  // What README says for machines that reach only a registry.
  ["with install scripts", [], { ONNXRUNTIME_NODE_INSTALL: "skip" }],
  ["with --ignore-scripts", ["--ignore-scripts"], {}],
] as const)("installed %s", (name, flags, env) => {
  const project = join(folder, name.replaceAll(" ", "-"));
  const bin = join(project, "node_modules", "minigpt4", "dist", "cli", "main.js");

  beforeAll(() => {
    mkdirSync(project);
    writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", private: true, type: "module" }));
    npm(["install", tarball, ...flags], project, { npm_config_ignore_scripts: "", ...env });
  });

  test("the command line prints its version and describes an image", () => {
    expect(execute(process.execPath, [bin, "--version"], project)).toBe(`${manifest.version}\n`);
    const options = ["--model", model, "--max-new-tokens", "5", "--json"];
    const output = execute(process.execPath, [bin, "describe", image("cat.jpg"), ...options], project);
    expect(JSON.parse(output)).toMatchObject({ description: expect.stringMatching(/./) });
    if (process.platform === "win32") return;
    expect(execute(join(project, "node_modules", ".bin", "minigpt4"), ["--version"], project)).toContain(
      manifest.version,
    );
  });

  test("a TypeScript program type-checks against the package and describes an image", () => {
    writeFileSync(
      join(project, "describe.ts"),
      `import { type AnswerOptions, MiniGPT4 } from "minigpt4";
const [folder = "", image = ""] = process.argv.slice(2);
const options: AnswerOptions = { maxNewTokens: 5 };
const model = await MiniGPT4.load(folder);
const description: string = await model.describe(image, options);
await model.close();
console.log(JSON.stringify({ description }));
`,
    );
    const compilerOptions = {
      target: "ES2023",
      module: "NodeNext",
      strict: true,
      skipLibCheck: true,
      types: ["node"],
      typeRoots: [join(root, "node_modules", "@types")],
    };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["describe.ts"] }));
    execute(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", "."], project);
    const output = execute(process.execPath, ["describe.js", model, image("cat.jpg")], project);
    expect(JSON.parse(output)).toMatchObject({ description: expect.stringMatching(/./) });
  });

  test("every entry of the package can be imported", () => {
    const entries = Object.keys(manifest.exports).filter((entry) => entry !== "./browser" && !entry.endsWith(".json"));
    const specifiers = entries.map((entry) => `minigpt4${entry.slice(1)}`);
    const program = `for (const name of ${JSON.stringify(specifiers)}) {
      const module = await import(name);
      console.log(name, Object.keys(module).length > 0);
    }`;
    const output = execute(process.execPath, ["--input-type=module", "-e", program], project);
    expect(output).toBe(specifiers.map((name) => `${name} true\n`).join(""));
  });
});
