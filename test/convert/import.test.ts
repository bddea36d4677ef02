/** Released files, imported: the model folder says what the original says. */
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ImportOptions, importJournal, importModel } from "../../src/convert/import.ts";
import { readJournal } from "../../src/files/journal.ts";
import { openCheckpoint } from "../../src/formats/open.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { toPositions } from "../../src/generation/generate.ts";
import { imageOutputs } from "../../src/generation/image-encoder.ts";
import { LanguageModel, languageGraph } from "../../src/generation/language-model.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import { imageWeights } from "../../src/models/minigpt4.ts";
import { type ModelFolder, openModelFolder } from "../../src/models/model-folder.ts";
import { evaluate, Session } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { BlockMatrix, dequantizeBlocks, quantizeBlocks } from "../../src/tensor/quant/blocks.ts";
import { parsePrompt } from "../../src/tokenizers/prompts.ts";
import { largestDifference, relativeDifference } from "../helpers/deviations.ts";
import { golden, goldenImport } from "../helpers/golden-import.ts";
import { GoldenSet } from "../helpers/golden-set.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
const fresh = () => join(folder, `model-${count++}`);

describe("the golden files", () => {
  test.each([
    // float32 changes nothing; float16 rounds what was float32 in the files; then blocks round (random weights of 64 columns have much to lose), and so do 8-bit activations.
    ["float32", 1e-5],
    ["float16", 1e-3],
    ["int8", 5e-2],
    ["int4", 4.5e-1],
  ] as const)(
    "in %s: scores within %f of the original's, by their root mean square",
    async (quantization, tolerance) => {
      const out = fresh();
      await importModel(goldenImport(out, { quantization }));
      const model = await openModelFolder(out);
      const set = await GoldenSet.load(golden(""));
      const found = await dialogueScores(model, set, model.quantization);
      const expected = await set.tensors.readFloat32("logits_turn0");
      // What is left beside the rounding of the weights is that of the activations.
      const widened = await dialogueScores(model, set, "float32");
      await set.close();
      await model.close();
      expect(rootMeanSquareError(found, expected)).toBeLessThan(tolerance);
      expect(relativeDifference(found, widened)).toBeLessThan(8e-2);
      if (quantization === "float32") expect(largestDifference(found, expected)).toBeLessThan(1e-3);
    },
  );

  test("without a Q-Former", async () => {
    const out = fresh();
    // The goldens were made with the norm of the Q-Former's file, the released model with one that was never trained.
    const projection = join(folder, "with-norm.safetensors");
    await joinFiles(
      projection,
      [golden("minigpt4-noqformer.pth"), golden("blip2_qformer.pth")],
      /^(llama_proj|ln_vision)\./,
    );
    await importModel(goldenImport(out, { qformer: undefined, projection, quantization: "float32" }));
    const model = await openModelFolder(out);
    expect(model.template.name).toBe("llama-2");
    const set = await GoldenSet.load(golden(""));
    const goldens = await openCheckpoint(golden("goldens-noqformer.safetensors"));
    const found = await imageTokens(model, set);
    const expected = await goldens.readFloat32("projected");
    expect(largestDifference(found, expected.subarray(0, found.length))).toBeLessThan(1e-3);
    await goldens.close();
    await set.close();
    await model.close();

    const created = fresh();
    await importModel(
      goldenImport(created, {
        qformer: undefined,
        projection: golden("minigpt4-noqformer.pth"),
        quantization: "float32",
      }),
    );
    const encoder = await openCheckpoint(join(created, "encoder.safetensors"));
    expect(new Set(await encoder.readFloat32("ln_vision.weight"))).toEqual(new Set([1]));
    expect(new Set(await encoder.readFloat32("ln_vision.bias"))).toEqual(new Set([0]));
    await encoder.close();
  });

  test.each([
    ["the largest block size that divides the rows", undefined, 64],
    ["of at most 32", 32, 32],
  ] as const)("matrices in blocks are used as they are stored: blocks %s", async (_, largest, blockSize) => {
    const out = fresh();
    await importModel(goldenImport(out, { quantization: "int4", blockSize: largest }));
    const { llm, quantization, close } = await openModelFolder(out);
    expect(quantization).toBe("native");
    const name = "model.layers.0.self_attn.q_proj.weight";
    const format = { bits: 4, minima: false, zeroPoints: true, blockSize } as const;
    const matrix = llm.checkpoint.matrix(name);
    if (!(matrix instanceof BlockMatrix)) throw new Error(`expected blocks, found ${matrix.kind}`);
    expect(matrix.format).toEqual(format);
    expect(llm.checkpoint.tensors.get(name)).toMatchObject({ storedType: "INT4", shape: [64, 64] });
    const original = await openCheckpoint(golden("llama-bin"));
    const exact = quantizeBlocks(await original.readFloat32(name), 64, format);
    await original.close();
    const { quants, scales, zeroPoints } = await matrix.load();
    expect({ quants: new Uint8Array(quants), scales, zeroPoints: new Uint8Array(zeroPoints ?? []) }).toEqual(exact);
    expect(await llm.checkpoint.readFloat32(name)).toEqual(dequantizeBlocks(exact, format, 64));
    // Rows of 172 are no whole blocks.
    expect(llm.checkpoint.tensors.get("model.layers.0.mlp.down_proj.weight")?.storedType).toBe("F16");
    // Only rows of the table are read, in 8 bits.
    expect(llm.checkpoint.tensors.get("model.embed_tokens.weight")?.storedType).toBe("INT8");
    await close();
  });

  test("matrices are stored in the runtime's layout and mapped from the files", async () => {
    const out = fresh();
    await importModel(goldenImport(out, { quantization: "int8", encoderQuantization: "int8" }));
    const { llm, config, imageSources, close } = await openModelFolder(out);
    const { graph, outputs } = languageGraph(llm.checkpoint, llm.config, "native");
    const images = new Graph({ mapped: true });
    imageOutputs(images, imageWeights(images, imageSources), config);
    const byName = new Map([...graph.initializers, ...images.initializers]);
    const products = ["q_proj", "k_proj", "v_proj"].map((name) => `model.layers.1.self_attn.${name}.weight`);
    for (const name of [
      `${products.join(",")}.int8`,
      `${products.join(",")}.scales`,
      "model.layers.0.mlp.gate_proj.weight,model.layers.0.mlp.up_proj.weight.int8",
      "model.layers.0.self_attn.o_proj.weight.int8",
      "model.embed_tokens.weight.rows.int8",
      "blocks.1.attn.qkv.weight.tiles",
      "Qformer.bert.encoder.layer.0.attention.self.query.weight",
    ]) {
      const found = byName.get(name);
      const { path, offset, length } = found?.stored ?? { path: "", offset: 0, length: 0 };
      expect(path, name).toContain(out);
      const bytes = readFileSync(path).subarray(offset, offset + length);
      expect(Buffer.compare(bytes, Buffer.from((await found?.load()) ?? [])), name).toBe(0);
    }
    const read = async (weightsFolder?: string) => {
      const session = await Session.create<string>(graph, outputs, { ...(weightsFolder && { weightsFolder }) });
      const model = new LanguageModel(llm.config, session);
      const { data } = await model.forward([[5, 6, 7]], model.newCache());
      await model.close();
      return data;
    };
    expect(await read(out)).toEqual(await read());
    expect(readdirSync(out).filter((name) => name.startsWith("."))).toEqual([]);
    await close();
  });

  test("the int8 image encoder has nearly the same features and half the size", async () => {
    const set = await GoldenSet.load(golden(""));
    const [wide, narrow] = [fresh(), fresh()];
    const tokens: Float32Array[] = [];
    for (const [out, encoderQuantization] of [
      [wide, "float16"],
      [narrow, "int8"],
    ] as const) {
      const { encoder } = await importModel(goldenImport(out, { encoderQuantization }));
      expect(encoder).toEqual({ quantization: encoderQuantization });
      const model = await openModelFolder(out);
      tokens.push(await imageTokens(model, set));
      await model.close();
    }
    const [exact, rounded] = tokens as [Float32Array, Float32Array];
    expect(rounded).not.toEqual(exact);
    expect(rootMeanSquareError(rounded, exact)).toBeLessThan(0.05);
    // In chat it is multiplied where it lies. Where activations are rounded, the last bits of float32 show.
    expect(rootMeanSquareError(await mappedTokens(narrow, set), rounded)).toBeLessThan(0.01);
    await set.close();
    const size = (out: string) => statSync(join(out, "encoder.safetensors")).size;
    expect(size(narrow)).toBeLessThan(0.8 * size(wide));
    const checkpoint = await openCheckpoint(join(narrow, "encoder.safetensors"));
    expect(checkpoint.matrix("blocks.0.mlp.fc1.weight").kind).toBe("tiled-int8");
    expect(checkpoint.matrix("blocks.0.norm1.weight").kind).toBe("float32");
    await checkpoint.close();
  });

  test("the similarity on photos decides whether the image encoder is stored in int8, unless everything is float16", async () => {
    const { encoder } = await importModel(goldenImport(fresh(), { quantization: "int8" }));
    expect(encoder.similarity).toBeGreaterThan(0.99);
    expect(encoder.similarity).toBeLessThan(1);
    expect(encoder.quantization).toBe((encoder.similarity ?? 0) >= 0.999 ? "int8" : "float16");
    expect((await importModel(goldenImport(fresh(), { quantization: "float16" }))).encoder).toEqual({
      quantization: "float16",
    });
  });
});

describe("an interrupted import", () => {
  test("resumes and writes the same bytes", async () => {
    const whole = fresh();
    const options = { quantization: "int4", maxShardBytes: 100_000 } as const;
    await importModel(goldenImport(whole, options));
    const out = fresh();
    for (let stops = 0; ; stops++) {
      const controller = new AbortController();
      let steps = 0;
      const onProgress = () => {
        if (++steps === 15 * (stops + 1)) controller.abort(new Error("stopped"));
      };
      try {
        await importModel(goldenImport(out, { ...options, signal: controller.signal, onProgress }));
        expect(stops).toBeGreaterThan(2);
        break;
      } catch (error) {
        expect((error as Error).message).toBe("stopped");
        expect(existsSync(join(out, "config.json"))).toBe(false);
        expect(allFiles(out).filter((file) => file.endsWith(".partial"))).toEqual([]);
        if (stops > 30) throw error;
      }
    }
    for (const file of allFiles(whole)) expect(readFileSync(join(out, file))).toEqual(readFileSync(join(whole, file)));
    expect(allFiles(out)).toEqual(allFiles(whole));
    expect(allFiles(out).filter((file) => file.includes("-of-")).length).toBeGreaterThan(2);
  });

  test("temporary files of a killed process are removed, finished files are not written again", async () => {
    const out = fresh();
    await importModel(goldenImport(out));
    const written = statSync(join(out, "encoder.safetensors")).mtimeMs;
    writeFileSync(join(out, "llm", "model.safetensors.0123.partial"), "half");
    const { resumed } = await importModel(goldenImport(out));
    expect(resumed).toBeGreaterThan(0);
    expect(statSync(join(out, "encoder.safetensors")).mtimeMs).toBe(written);
    expect(allFiles(out).filter((file) => file.endsWith(".partial"))).toEqual([]);
  });

  test("a file that was damaged later is detected and written again", async () => {
    const out = fresh();
    await importModel(goldenImport(out));
    const path = join(out, "encoder.safetensors");
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(path, bytes);
    await expect(importModel(goldenImport(out))).rejects.toThrow("does not contain what was written");
    await importModel(goldenImport(out));
    expect((await readJournal(join(out, importJournal)))?.finished).toBe(true);
    truncateSync(path, 100);
    await importModel(goldenImport(out));
    expect(statSync(path).size).toBe(bytes.length);
  });

  test("refuses other files or options", async () => {
    const out = fresh();
    await importModel(goldenImport(out));
    await expect(importModel(goldenImport(out, { quantization: "int8" }))).rejects.toThrow(
      "different files or options (quantization)",
    );
    const llm = join(folder, "llm-copy");
    await cp(golden("llama-bin"), llm, { recursive: true });
    const own = fresh();
    await importModel(goldenImport(own, { llm }));
    utimesSync(join(llm, "pytorch_model-00001-of-00003.bin"), 0, 1000);
    for (const file of readdirSync(llm)) utimesSync(join(llm, file), 0, 2000);
    await expect(importModel(goldenImport(own, { llm }))).rejects.toThrow("different files or options (llm)");
    await expect(importModel(goldenImport(folder))).rejects.toThrow("is not empty");
  });
});

describe("errors are thrown before anything is written", () => {
  const zeros = (...shape: number[]) =>
    ndarray("float16", shape, new Uint16Array(shape.reduce((product, dim) => product * dim, 1)));

  test.each<[string, Partial<ImportOptions>, string]>([
    [
      "the Q-Former as image encoder",
      { vit: golden("blip2_qformer.pth") },
      "contains the Q-Former; pass it with --qformer. --vit needs",
    ],
    ["the projection as Q-Former", { qformer: golden("minigpt4.pth") }, "pass it with --projection. --qformer needs"],
    [
      "a language model as projection",
      { projection: golden("llama-safetensors") },
      "pass it with --llm. --projection needs",
    ],
    ["the image encoder as language model", { llm: golden("eva_vit.pth") }, "pass it with --vit. --llm needs"],
    [
      "heads that cannot be known",
      { vitHeads: undefined },
      "is not a multiple of 88; pass the number of heads with --vit-heads",
    ],
    ["more blocks than the encoder has", { vitLayers: 4 }, "has 3 blocks, fewer than --vit-layers 4"],
    [
      "a projection without its Q-Former",
      { qformer: undefined },
      "if it was trained with a Q-Former, pass that with --qformer",
    ],
    [
      "a Q-Former for a projection without one",
      { projection: golden("minigpt4-noqformer.pth") },
      "leave out --qformer",
    ],
    [
      "another model's Q-Former",
      { qformer: join(golden(".."), "gqa", "blip2_qformer.pth") },
      "the Q-Former expects features of width",
    ],
    ["a file that does not exist", { projection: golden("nothing.pth") }, "nothing.pth"],
  ])("%s", async (_, change, message) => {
    const out = fresh();
    await expect(importModel(goldenImport(out, change))).rejects.toThrow(message);
    expect(existsSync(out)).toBe(false);
  });

  test("the error for a 13B projection with a 7B language model names both", async () => {
    const projection = join(folder, "pretrained_minigpt4.safetensors");
    await writeSafetensors(projection, { "llama_proj.weight": zeros(5120, 48), "llama_proj.bias": zeros(5120) });
    await expect(importModel(goldenImport(fresh(), { projection }))).rejects.toThrow(
      /pretrained_minigpt4\.safetensors and .*llama-bin.* do not match: llama_proj\.weight is \[5120, 48\], for a language model of width 5120 \(13B\), but this one has width 64/,
    );
  });

  test("a missing tensor", async () => {
    const vit = join(folder, "vit.safetensors");
    await joinFiles(vit, [golden("eva_vit.pth")], /^(?!blocks\.1\.mlp\.fc2\.weight)/);
    await expect(importModel(goldenImport(fresh(), { vit }))).rejects.toThrow(
      'has no tensor "blocks.1.mlp.fc2.weight"',
    );
  });

  test("refuses unmerged delta weights", async () => {
    const llm = join(folder, "delta");
    await cp(golden("llama-safetensors"), llm, {
      recursive: true,
      filter: (file) => !file.includes("model-0") && !file.includes("index"),
    });
    await joinFiles(join(llm, "model.safetensors"), [golden("llama-safetensors")], /./, (values) =>
      values.map((v) => v / 100),
    );
    await expect(importModel(goldenImport(fresh(), { llm }))).rejects.toThrow("contains delta weights, not a model");
  });

  test("values that cannot be quantized", async () => {
    const llm = join(folder, "broken");
    await cp(golden("llama-safetensors"), llm, {
      recursive: true,
      filter: (file) => !file.includes("model-0") && !file.includes("index"),
    });
    await joinFiles(join(llm, "model.safetensors"), [golden("llama-safetensors")], /./, (values, name) =>
      name.includes("layers.1.self_attn.v_proj") ? values.fill(Number.NaN, 5, 6) : values,
    );
    await expect(importModel(goldenImport(fresh(), { llm }))).rejects.toThrow(
      'tensor "model.layers.1.self_attn.v_proj.weight": contains values that are infinite or NaN',
    );
  });
});

/** Tensors of several files in one, changed. */
async function joinFiles(
  path: string,
  files: readonly string[],
  wanted: RegExp,
  change: (values: Float32Array, name: string) => Float32Array = (values) => values,
): Promise<void> {
  const arrays: Record<string, ReturnType<typeof ndarray<"float32">>> = {};
  for (const file of files) {
    const checkpoint = await openCheckpoint(file);
    for (const { name, shape } of checkpoint.tensors.values()) {
      if (wanted.test(name)) arrays[name] = ndarray("float32", shape, change(await checkpoint.readFloat32(name), name));
    }
    await checkpoint.close();
  }
  await writeSafetensors(path, arrays);
}

/** Image tokens of the first golden image, from the goldens' own pixels. */
async function imageTokens(model: ModelFolder, set: GoldenSet): Promise<Float32Array> {
  const graph = new Graph();
  const outputs = imageOutputs(graph, model.imageWeights(graph), model.config);
  return (await evaluate(graph, outputs, await firstImage(model, set))).tokens.data as Float32Array;
}

/** As `imageTokens`, with the weights mapped. */
async function mappedTokens(path: string, set: GoldenSet): Promise<Float32Array> {
  const { config, imageSources, close, ...model } = await openModelFolder(path);
  const graph = new Graph({ mapped: true });
  const outputs = imageOutputs(graph, imageWeights(graph, imageSources), config);
  const { tokens } = await (await Session.create(graph, outputs, { storage: "mapped", weightsFolder: path })).run(
    await firstImage({ ...model, config }, set),
  );
  await close();
  return tokens.data as Float32Array;
}

async function firstImage({ config }: Pick<ModelFolder, "config">, set: GoldenSet) {
  const { imageSize } = config.encoder;
  const pixels = (await set.tensors.readFloat32("pixels")).subarray(0, 3 * imageSize * imageSize);
  return { pixels: ndarray("float32", [1, 3, imageSize, imageSize], pixels) };
}

/** Scores of the dialogue's first question about the first image. */
async function dialogueScores(
  model: ModelFolder,
  set: GoldenSet,
  quantization: ModelFolder["quantization"],
): Promise<Float32Array> {
  const flat = await imageTokens(model, set);
  const { hiddenSize } = model.config.llm;
  const tokens = Array.from({ length: flat.length / hiddenSize }, (_, i) =>
    flat.subarray(i * hiddenSize, (i + 1) * hiddenSize),
  );
  const prompt = parsePrompt(set.goldens.dialogue[0]?.prompt ?? "");
  const llm = await createLanguageModel(model.llm.checkpoint, model.llm.config, { quantization });
  const { data } = await llm.forward([toPositions(prompt, [tokens], model.llm.tokenizer)], llm.newCache(), "all");
  await llm.close();
  return data;
}

/** Relative to the root mean square of what is expected. */
function rootMeanSquareError(found: Float32Array, expected: Float32Array): number {
  const squares = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(squares(found.map((value, i) => value - (expected[i] as number))) / squares(expected));
}

function allFiles(path: string): string[] {
  const entries = readdirSync(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .sort();
}
