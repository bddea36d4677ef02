import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { image, minigpt4 } from "../helpers/cli-command.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";
import { writeRecipe, writeWalls } from "../helpers/walls.ts";

const folder = temporaryFolder();
let recipe: string;

beforeAll(async () => {
  await writeWalls(join(folder, "data"));
  recipe = await writeRecipe(folder);
});

const out = (name: string) => join(folder, name);

/** Settings of a short run without the contrastive stage. */
function short(name: string): string[] {
  const run = { contrastive: null, iters_per_epoch: 3, output_dir: out(name), validate_every: 2 };
  return Object.entries(run).flatMap(([key, value]) => ["--set", `run.${key}=${JSON.stringify(value)}`]);
}

test("a dry run prints the plan and writes nothing", async () => {
  const none = ["--set", "run.feature_cache=false"];
  const { code, stdout, stderr } = await minigpt4(["train", recipe, "--dry-run", ...short("dry"), ...none]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  for (const line of [
    /^ {2}encoder +frozen +.*encoder\.safetensors$/m,
    /^ {2}qformer +trained +new, random$/m,
    /^ {2}language model +frozen +.*llama-safetensors/m,
    /^ {2}walls +4 images, 8 texts of \d\.\d tokens, \d+ B {2}\(flickr8k, .*data\)$/m,
    /^ {2}validation +2 images, not trained on$/m,
    /^ {2}parameters +44,960 trained$/m,
    /^ {2}steps +3 of 4 images$/m,
    /^ {2}padding +\d+% of the positions$/m,
    /^ {2}feature cache +none: features are computed in each step$/m,
    /^ {2}time +\d+\.\d+ s per step, measured on three; .* in total$/m,
  ]) {
    expect(stdout).toMatch(line);
  }
  expect([existsSync(out("dry")), existsSync(out("cache"))]).toEqual([false, false]);
});

test("a dry run as JSON", async () => {
  const { code, stdout } = await minigpt4(["train", recipe, "--dry-run", "--json", ...short("dry")]);
  expect(code).toBe(0);
  expect(stdout.trimEnd().split("\n")).toHaveLength(1);
  expect(JSON.parse(stdout)).toMatchObject({
    datasets: [{ name: "walls", format: "flickr8k", images: 4, texts: 8, broken: 0, isEstimate: false }],
    validation: 2,
    steps: 3,
    imagesPerStep: 4,
    trainedParameters: 44_960,
    secondsPerStep: expect.any(Number),
    // Four images in two views and two as they are, of 4 cells of 1280 float16 each.
    cacheBytes: (4 * 2 + 2) * 4 * 1280 * 2,
  });
});

test("an invalid setting is an error that names the file and the key", async () => {
  for (const [setting, message] of [
    ["run.init_lrr=1", /recipe\.yaml:\d+: run: .*init_lrr/],
    ["run.init_lr=quick", /recipe\.yaml(:\d+)?: run\.init_lr: /],
    ["run.init_lr", /--set run\.init_lr: expected key\.key=value/],
  ] as const) {
    const { code, stdout, stderr } = await minigpt4(["train", recipe, "--set", setting]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^error: /);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  }
  expect(existsSync(out("out"))).toBe(false);
});

test("a missing recipe, and options that exclude each other", async () => {
  const missing = await minigpt4(["train", out("missing.yaml")]);
  expect(missing).toMatchObject({ code: 1, stdout: "" });
  expect(missing.stderr).toMatch(/^error: Recipe .*missing\.yaml cannot be read/);
  expect((await minigpt4(["train", recipe, "--dry-run", "--resume"])).code).toBe(2);
});

test("a run prints its folder, which describe loads; it is not overwritten by mistake", async () => {
  const args = ["train", recipe, ...short("model")];
  const { code, stdout, stderr } = await minigpt4(args);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${out("model")}\n` });
  expect(stderr).toMatch(/^captions: step 3 of 3 .*loss \d+\.\d{3} {2}lr .*tokens\/s .*waiting for data$/m);
  expect(stderr).toMatch(/^step 2: validation loss \d+\.\d{3}/m);
  // What the model says is shown in a line, without what a terminal would obey.
  expect(stderr).toMatch(/^ {2}.*white\.png: /m);
  expect(stderr.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  for (const line of stderr.trimEnd().split("\n")) expect(line).toMatch(/^(step \d|captions: step| {2}\S+\.png: )/);

  const described = await minigpt4(["describe", image("cat.jpg"), "--model", out("model"), "--max-new-tokens", "3"]);
  expect(described).toMatchObject({ code: 0, stderr: "" });

  const weights = join(out("model"), "projection.safetensors");
  const written = statSync(weights).mtimeMs;
  const again = await minigpt4(args);
  expect(again).toMatchObject({ code: 1, stdout: "" });
  expect(again.stderr).toMatch(/^error: .*model already contains a run\. .*--resume.*--overwrite/);
  expect(statSync(weights).mtimeMs).toBe(written);
  expect(await minigpt4([...args, "--overwrite"])).toMatchObject({ code: 0, stdout: `${out("model")}\n` });
  expect(statSync(weights).mtimeMs).toBeGreaterThan(written);
});

test("--resume without a run is an error", async () => {
  const { code, stderr } = await minigpt4(["train", recipe, "--resume", ...short("none")]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: No checkpoint in .*none.* to resume from\. Start without --resume\n$/);
  expect(existsSync(out("none"))).toBe(false);
});

test("encode fills the cache and prints the number of computed images", async () => {
  const cache = ["--set", `run.feature_cache=${JSON.stringify(out("encoded"))}`];
  expect(await minigpt4(["encode", recipe, ...cache])).toMatchObject({
    code: 0,
    stdout: "Computed features of 10 of 10 images\n",
  });
  expect(readdirSync(out("encoded"))).toHaveLength(1);
  const again = await minigpt4(["encode", recipe, ...cache, "--json"]);
  expect(again.code).toBe(0);
  expect(JSON.parse(again.stdout)).toEqual({ total: 10, computed: 0, broken: 0 });
  const none = await minigpt4(["encode", recipe, "--set", "run.feature_cache=false"]);
  expect(none).toMatchObject({ code: 1, stdout: "" });
  expect(none.stderr).toMatch(/^error: .*feature_cache is false\n$/);
});
