import { expect, test } from "vitest";
import { type BeamOptions, beamSearch } from "../../src/generation/beam-search.ts";
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { logSoftmax } from "../../src/generation/sampling.ts";
import { tinyLanguageModel } from "../helpers/tiny-llama.ts";

const vocabSize = 4;
const eosId = 0;
const prompt = [1, 2];
const maxNewTokens = 4;

interface Answer {
  readonly ids: readonly number[];
  readonly score: number;
}

/** Every answer of at most `maxNewTokens` tokens and the sum of its log-probabilities; an end counts as a token. */
async function allAnswers(model: LanguageModel, ids: readonly number[] = [], score = 0): Promise<Answer[]> {
  if (ids.length === maxNewTokens) return [{ ids, score }];
  const logs = logSoftmax((await model.forward([[...prompt, ...ids]], model.newCache())).data);
  const answers: Answer[] = [];
  for (const [id, log] of logs.entries()) {
    const next = [...ids, id];
    if (id === eosId) answers.push({ ids: next, score: score + log });
    else answers.push(...(await allAnswers(model, next, score + log)));
  }
  return answers;
}

const search = (model: LanguageModel, options: Partial<BeamOptions>) =>
  beamSearch(prompt, { numBeams: 1, maxNewTokens, eosId, ...options }, { model, cache: model.newCache() });

test("with as many beams as possible answers, the best answer is found for every length penalty", async () => {
  const found = new Set<number>();
  for (const seed of [1, 2, 3]) {
    const model = await tinyLanguageModel(vocabSize, seed);
    const answers = await allAnswers(model);
    expect(answers.reduce((sum, { score }) => sum + Math.exp(score), 0)).toBeCloseTo(1, 4);
    for (const lengthPenalty of [-1, 0, 1, 3]) {
      const rate = ({ ids, score }: Answer) => score / ids.length ** lengthPenalty;
      const [best] = answers.toSorted((a, b) => rate(b) - rate(a)) as [Answer];
      const expected = best.ids.filter((id) => id !== eosId);
      found.add(expected.length);
      expect(await search(model, { numBeams: 4 ** maxNewTokens, lengthPenalty })).toEqual(expected);
    }
    await model.close();
  }
  // The penalties do lead to answers of different lengths.
  expect(found.size).toBeGreaterThan(1);
});

test("one beam without an end is greedy decoding", async () => {
  const model = await tinyLanguageModel(vocabSize, 5);
  const greedy: number[] = [];
  for (let i = 0; i < maxNewTokens; i++) {
    const { data } = await model.forward([[...prompt, ...greedy]], model.newCache());
    greedy.push(data.indexOf(Math.max(...data)));
  }
  expect(await search(model, { eosId: -1 })).toEqual(greedy);
  await model.close();
});

test("a prompt that is partly in the cache gives the same result", async () => {
  const model = await tinyLanguageModel(vocabSize, 2);
  const cache = model.newCache();
  await model.forward([prompt.slice(0, 1)], cache);
  const options = { numBeams: 3, maxNewTokens, eosId };
  expect(await beamSearch(prompt.slice(1), options, { model, cache })).toEqual(await search(model, options));
  await model.close();
});

test("a sequence that ends in a stop string is finished", async () => {
  const model = await tinyLanguageModel(vocabSize, 5);
  const all = await search(model, { numBeams: 2, eosId: -1, lengthPenalty: 0 });
  const isStop = (ids: readonly number[]) => ids.length === 2;
  const stopped = await search(model, { numBeams: 2, eosId: -1, isStop, lengthPenalty: 0 });
  expect(all).toHaveLength(maxNewTokens);
  expect(stopped).toHaveLength(2);
  await model.close();
});

test("a search can be cancelled", async () => {
  const model = await tinyLanguageModel(vocabSize);
  const context = { model, cache: model.newCache(), signal: AbortSignal.abort() };
  await expect(beamSearch(prompt, { numBeams: 2, maxNewTokens, eosId }, context)).rejects.toThrow(/abort/i);
  await model.close();
});
