import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { Checkpoints, type NamedArrays, type TrainerCheckpoint } from "../../src/training/checkpoints.ts";
import { normal } from "../helpers/weights-in-memory.ts";

const root = await mkdtemp(join(tmpdir(), "checkpoints-"));
afterAll(() => rm(root, { recursive: true, force: true, maxRetries: 3 }));

const newFolder = () => mkdtemp(join(root, "run"));
const stages = ["contrastive", "captions"];

function arrays(seed: number): NamedArrays {
  return { "llama_proj.weight": normal([3, 2], seed), "llama_proj.bias": normal([3], seed + 1) };
}

function stateOf(stage: string, step: number, more: Partial<TrainerCheckpoint> = {}): TrainerCheckpoint {
  return {
    stage,
    state: { step, parameters: arrays(step), means: arrays(step + 2), variances: arrays(step + 4) },
    position: { streams: [{ epoch: 1, part: 2, position: step }], behind: [0] },
    ...more,
  };
}

const namesIn = async (folder: string) => (await readdir(join(folder, "checkpoints"))).sort();

test("a checkpoint is read exactly as it was saved", async () => {
  const checkpoints = new Checkpoints(await newFolder(), stages, 1);
  const count = fc.nat(2 ** 31);
  // JSON knows no -0.
  const float = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
  const position = fc.record({
    streams: fc.array(fc.record({ epoch: count, part: count, position: count }), { maxLength: 3 }),
    behind: fc.array(float, { maxLength: 3 }),
  });
  const more = fc.record(
    { best: fc.record({ step: count, loss: float }), learningRate: float, ema: fc.nat(99).map(arrays) },
    { requiredKeys: [] },
  );
  let step = 0;
  await fc.assert(
    fc.asyncProperty(position, more, async (where, rest) => {
      const saved = stateOf("captions", step++, { position: where, ...rest });
      await checkpoints.save(saved);
      expect(await checkpoints.latest()).toEqual(saved);
    }),
    { numRuns: 30 },
  );
});

test("the last checkpoints are kept, those of later stages first", async () => {
  const folder = await newFolder();
  const checkpoints = new Checkpoints(folder, stages, 3);
  expect(await checkpoints.isEmpty()).toBe(true);
  for (const step of [0, 5, 90]) await checkpoints.save(stateOf("contrastive", step));
  for (const step of [0, 7]) await checkpoints.save(stateOf("captions", step));
  expect(await namesIn(folder)).toEqual([
    "captions-0000000.safetensors",
    "captions-0000007.safetensors",
    "contrastive-0000090.safetensors",
  ]);
  expect(await checkpoints.latest()).toMatchObject({ stage: "captions", state: { step: 7 } });
  expect(await checkpoints.isEmpty()).toBe(false);
});

test("checkpoints are ordered by step number", async () => {
  const checkpoints = new Checkpoints(await newFolder(), stages, 2);
  for (const step of [9_999_999, 10_000_000, 10_000_001]) await checkpoints.save(stateOf("captions", step));
  expect(await checkpoints.latest()).toMatchObject({ state: { step: 10_000_001 } });
});

test("a damaged checkpoint is skipped with a message; without another one, that is an error", async () => {
  const folder = await newFolder();
  const checkpoints = new Checkpoints(folder, stages, 9);
  for (const step of [1, 2, 3, 4]) await checkpoints.save(stateOf("captions", step));
  const pathOf = (step: number) => join(folder, "checkpoints", `captions-000000${step}.safetensors`);
  const whole = await readFile(pathOf(4));
  await writeFile(pathOf(4), whole.subarray(0, whole.length - 1));
  await writeSafetensors(pathOf(3), arrays(1), { run: JSON.stringify({ stage: "captions" }) });
  await writeSafetensors(pathOf(2), arrays(1));
  const messages: string[] = [];
  const found = await checkpoints.latest((message) => messages.push(message));
  expect(found).toEqual(stateOf("captions", 1));
  expect(messages).toHaveLength(3);
  messages.forEach((message, i) => {
    expect(message).toContain(pathOf(4 - i));
  });
  await rm(pathOf(1));
  await expect(checkpoints.latest()).rejects.toThrow(/No checkpoint in .*Start without --resume/);
  await expect(new Checkpoints(await newFolder(), stages, 2).latest()).rejects.toThrow(/No checkpoint/);
});

test("a checkpoint that was just saved is kept, whatever the step of a damaged one", async () => {
  const folder = await newFolder();
  const checkpoints = new Checkpoints(folder, stages, 1);
  await checkpoints.save(stateOf("captions", 8));
  const damaged = join(folder, "checkpoints", "captions-0000009.safetensors");
  await writeFile(damaged, "not a checkpoint");
  expect(await checkpoints.latest()).toMatchObject({ state: { step: 8 } });
  // The run resumes from step 8 and saves before the step of the damaged checkpoint.
  await checkpoints.save(stateOf("contrastive", 3));
  expect(await checkpoints.latest()).toMatchObject({ stage: "contrastive", state: { step: 3 } });
  await checkpoints.save(stateOf("captions", 1));
  expect(await namesIn(folder)).toEqual(["captions-0000001.safetensors"]);
});

test("a checkpoint that cannot be written leaves no files behind and the others unchanged", async () => {
  const folder = await newFolder();
  const checkpoints = new Checkpoints(folder, stages, 2);
  await checkpoints.save(stateOf("captions", 1));
  // A folder is where the file should go.
  await mkdir(join(folder, "checkpoints", "captions-0000002.safetensors"));
  await expect(checkpoints.save(stateOf("captions", 2))).rejects.toThrow();
  expect(await namesIn(folder)).toEqual(["captions-0000001.safetensors", "captions-0000002.safetensors"]);
  expect(await checkpoints.latest()).toEqual(stateOf("captions", 1));
});

test("other files are neither read as checkpoints nor removed", async () => {
  const folder = await newFolder();
  const checkpoints = new Checkpoints(folder, stages, 2);
  await checkpoints.save(stateOf("captions", 1));
  const others = ["captions-0000009.safetensors.12.partial", "notes.txt", "other-0000003.safetensors"];
  for (const name of others) await writeFile(join(folder, "checkpoints", name), "");
  expect(await checkpoints.latest()).toMatchObject({ state: { step: 1 } });
  await checkpoints.clear();
  expect(await namesIn(folder)).toEqual(others);
  expect(await checkpoints.isEmpty()).toBe(true);
});
