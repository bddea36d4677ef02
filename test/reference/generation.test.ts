/** The golden dialogues: prompts, tokens, context, scores over the cache, and every way of decoding. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Checkpoint, openCheckpoint } from "../../src/formats/open.ts";
import { beamSearch } from "../../src/generation/beam-search.ts";
import { generate, toPositions } from "../../src/generation/generate.ts";
import type { ImageTokens } from "../../src/generation/image-encoder.ts";
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { indices, type Position } from "../../src/generation/language-model.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import { type SamplingOptions, sampleToken } from "../../src/generation/sampling.ts";
import { embedTokens } from "../../src/models/llama.ts";
import { Weights } from "../../src/nn/weights.ts";
import { evaluate } from "../../src/runtime/session.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Random } from "../../src/tensor/random.ts";
import { loadTokenizer, type Tokenizer } from "../../src/tokenizers/load.ts";
import { llama2, type Prompt, promptText, type Turn, tokenizePrompt, vicunaV0 } from "../../src/tokenizers/prompts.ts";
import { expectDeviation, expectEqual, largestDifference } from "../helpers/deviations.ts";
import { type DialogueTurn, GoldenSet, goldenFolders, type Layouts } from "../helpers/golden-set.ts";

const tolerance = 1e-3;
const maxNewTokens = 24;
/** The length penalty with which `beam3_lp` was searched. */
const lengthPenalty = 2;
/** The image that the dialogues are about, in the order of `images`. */
const image = 0;
const llms: NonNullable<Layouts["llm"]>[] = ["llama-safetensors", "llama-bin"];

describe.each(goldenFolders())("%s", (folder) => {
  const name = folder.split(/[\\/]/).at(-1);

  describe.each(llms)("%s", (llm) => {
    test("prompts and their tokens", async () => {
      const set = await GoldenSet.load(folder);
      const tokenizer = await loadTokenizer(join(folder, llm));
      set.goldens.dialogue.forEach((turn, i) => {
        const prompt = dialoguePrompt(set.goldens.dialogue, i);
        expectEqual(`${name}: prompt of turn ${i} (${llm})`, promptText(prompt), turn.prompt);
        expectEqual(`${name}: tokens of turn ${i} (${llm})`, segmentIds(prompt, tokenizer), turn.segment_ids);
      });
      await set.close();
    });

    test("context embeddings", async () => {
      const set = await GoldenSet.load(folder);
      const tokenizer = await loadTokenizer(join(folder, llm));
      const images = [await imageTokensOf(set.tensors)];
      const sequence = toPositions(dialoguePrompt(set.goldens.dialogue, 0), images, tokenizer);
      const found = await embeddings(set, llm, sequence);
      const expected = await set.tensors.readFloat32("context_embeds");
      expectDeviation(`${name}: context_embeds (${llm})`, largestDifference(found, expected), tolerance);
      await set.close();
    });

    test("logits of every position, in one pass and in chunks over the KV cache", async () => {
      await withModel(folder, llm, async ({ set, model, sequence }) => {
        for (const i of set.goldens.dialogue.keys()) {
          const expected = await set.tensors.readFloat32(`logits_turn${i}`);
          const positions = sequence(i);
          const whole = await model.forward([positions], model.newCache(), "all");
          expectDeviation(`${name}: logits_turn${i} (${llm})`, largestDifference(whole.data, expected), tolerance);
          const found = await readInPieces(model, positions, [1, 7, 64, 2]);
          expectDeviation(`${name}: logits_turn${i} in pieces (${llm})`, largestDifference(found, expected), tolerance);
        }
      });
    });

    test("greedy, with repetition penalty, and beam search", async () => {
      await withModel(folder, llm, async ({ set, model, tokenizer, sequence }) => {
        const { eosId } = tokenizer;
        for (const [i, turn] of set.goldens.dialogue.entries()) {
          const prompt = sequence(i);
          const beams = (numBeams: number, lengthPenalty: number) =>
            beamSearch(prompt, { numBeams, lengthPenalty, maxNewTokens, eosId }, { model, cache: model.newCache() });
          type Way = "greedy" | "greedy_rp" | "beam5" | "beam3_lp";
          const compare = (way: Way, found: readonly number[]) =>
            expectEqual(`${name}: ${way} of turn ${i} (${llm})`, found, upTo(turn[way], eosId));
          compare("greedy", await tokens(model, prompt, eosId, {}));
          compare("greedy_rp", await tokens(model, prompt, eosId, { repetitionPenalty: 1.05 }));
          compare("beam5", await beams(5, 1));
          compare("beam3_lp", await beams(3, lengthPenalty));
          expectEqual(
            `${name}: greedy text of turn ${i} (${llm})`,
            await text(model, tokenizer, prompt),
            turn.greedy_text,
          );
        }
      });
    });
  });

  test.runIf(existsSync(join(folder, "goldens-noqformer.json")))("without a Q-Former, Llama 2 prompt", async () => {
    const golden = JSON.parse(readFileSync(join(folder, "goldens-noqformer.json"), "utf8")) as {
      readonly prompt: string;
      readonly segment_ids: readonly (readonly number[])[];
    };
    await withModel(folder, "llama-safetensors", async ({ set, model, tokenizer }) => {
      const prompt = llama2.render([{ role: "user", text: "Describe this image in detail.", images: 1 }]);
      expectEqual(`${name}: Llama 2 prompt`, promptText(prompt), golden.prompt);
      expectEqual(`${name}: tokens of the Llama 2 prompt`, segmentIds(prompt, tokenizer), golden.segment_ids);
      const tensors = await openCheckpoint(join(folder, "goldens-noqformer.safetensors"));
      const sequence = toPositions(prompt, [await imageTokensOf(tensors)], tokenizer);
      expectDeviation(
        `${name}: context_embeds without a Q-Former`,
        largestDifference(
          await embeddings(set, "llama-safetensors", sequence),
          await tensors.readFloat32("context_embeds"),
        ),
        tolerance,
      );
      const scores = await readInPieces(model, sequence, [80, 1]);
      expectDeviation(
        `${name}: logits without a Q-Former, in pieces`,
        largestDifference(scores, await tensors.readFloat32("logits")),
        tolerance,
      );
      await tensors.close();
    });
  });
});

interface Opened {
  readonly set: GoldenSet;
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  /** The dialogue up to question `turn`, as the language model reads it. */
  sequence(turn: number): Position[];
}

async function withModel(folder: string, llm: NonNullable<Layouts["llm"]>, use: (opened: Opened) => Promise<void>) {
  const set = await GoldenSet.load(folder);
  const checkpoint = await openCheckpoint(join(folder, llm));
  const model = await createLanguageModel(checkpoint, set.config().llm);
  const tokenizer = await loadTokenizer(join(folder, llm));
  const images = [await imageTokensOf(set.tensors)];
  const sequence = (turn: number) => toPositions(dialoguePrompt(set.goldens.dialogue, turn), images, tokenizer);
  await use({ set, model, tokenizer, sequence });
  await model.close();
  await checkpoint.close();
  await set.close();
}

/** Question `turn` after the earlier ones, which were answered with the goldens' fixed sentences. */
function dialoguePrompt(dialogue: readonly DialogueTurn[], turn: number): Prompt {
  const turns = dialogue
    .slice(0, turn + 1)
    .flatMap(({ question }, i): Turn[] => [
      ...(i === 0 ? [] : [{ role: "assistant" as const, text: `It is image number ${i - 1}.` }]),
      { role: "user", text: question, images: i === 0 ? 1 : 0 },
    ]);
  return vicunaV0.render(turns);
}

function segmentIds(prompt: Prompt, tokenizer: Tokenizer): (readonly number[])[] {
  return tokenizePrompt(prompt, tokenizer).flatMap((piece) => ("ids" in piece ? [piece.ids] : []));
}

/** The image's rows of `projected` [images, tokens, hiddenSize]. */
async function imageTokensOf(tensors: Checkpoint): Promise<ImageTokens> {
  const [, count = 0, width = 0] = tensors.tensors.get("projected")?.shape ?? [];
  const rows = await tensors.readFloat32("projected");
  return Array.from({ length: count }, (_, i) => {
    const start = (image * count + i) * width;
    return rows.subarray(start, start + width);
  });
}

/** What the language model reads at each position. */
async function embeddings(set: GoldenSet, llm: string, sequence: readonly Position[]): Promise<Float32Array> {
  const checkpoint = await openCheckpoint(join(set.folder, llm));
  const graph = new Graph();
  const ids = graph.input("ids", "int64", ["positions"]);
  const rows = embedTokens(new Weights(graph, checkpoint), ids, set.config().llm);
  const numbers = sequence.map((position) => (typeof position === "number" ? position : 0));
  const found = await evaluate(graph, { rows }, { ids: indices([numbers.length], numbers) });
  await checkpoint.close();
  const all = found.rows.data as Float32Array;
  sequence.forEach((position, i) => {
    if (typeof position !== "number") all.set(position, i * position.length);
  });
  return all;
}

/** Scores of every position, read in pieces of these sizes in turn. */
async function readInPieces(model: LanguageModel, sequence: readonly Position[], sizes: readonly number[]) {
  const cache = model.newCache();
  const scores: number[] = [];
  for (let start = 0, i = 0; start < sequence.length; i++) {
    const end = start + (sizes[i % sizes.length] as number);
    scores.push(...(await model.forward([sequence.slice(start, end)], cache, "all")).data);
    start = end;
  }
  expect(cache.length).toBe(sequence.length);
  return scores;
}

/** An answer's token ids, without the end-of-sequence token. */
async function tokens(model: LanguageModel, prompt: readonly Position[], eosId: number, options: SamplingOptions) {
  const cache = model.newCache();
  const said: number[] = [];
  let next = prompt;
  while (said.length < maxNewTokens) {
    const { data } = await model.forward([next], cache);
    const id = sampleToken(data, options, { random: new Random(0), previous: said });
    if (id === eosId) break;
    said.push(id);
    next = [id];
  }
  return said;
}

async function text(model: LanguageModel, tokenizer: Tokenizer, prompt: readonly Position[]): Promise<string> {
  let answer = "";
  for await (const piece of generate(
    prompt,
    { maxNewTokens },
    { model, tokenizer, cache: model.newCache(), random: new Random(0) },
  )) {
    answer += piece;
  }
  return answer;
}

function upTo(ids: readonly number[], eosId: number): readonly number[] {
  const end = ids.indexOf(eosId);
  return end < 0 ? ids : ids.slice(0, end);
}
