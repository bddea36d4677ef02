import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { GenerationEvent } from "../../src/engine/engine.ts";
import { type ScheduledRequest, Scheduler } from "../../src/engine/scheduler.ts";
import { beamSearch } from "../../src/generation/beam-search.ts";
import { generate } from "../../src/generation/generate.ts";
import type { LanguageModel } from "../../src/generation/language-model.ts";
import { Random } from "../../src/tensor/random.ts";
import { byteTokenizer, tinyLanguageModel } from "../helpers/tiny-llama.ts";

let model: LanguageModel;
/** How many sequences each call of the model had, and of what length. */
let calls: { batch: number; length: number }[] = [];
beforeAll(async () => {
  model = await tinyLanguageModel(byteTokenizer.vocabSize);
  const read = model.forward.bind(model);
  model.forward = (sequences, ...rest) => {
    calls.push({ batch: sequences.length, length: sequences[0]?.length ?? 0 });
    return read(sequences, ...rest);
  };
});
afterAll(() => model.close());

const scheduler = (maxBatch = 4) => new Scheduler(model, byteTokenizer, { maxBatch, prefixBytes: 2 ** 26 });
/** Its answers end at their greatest length only. */
const endlessScheduler = (maxBatch = 4) =>
  new Scheduler(model, { ...byteTokenizer, eosId: -1 }, { maxBatch, prefixBytes: 2 ** 26 });
const request = (change: Partial<ScheduledRequest> = {}): ScheduledRequest => ({
  sequence: [256, 70],
  maxNewTokens: 12,
  stop: [],
  choices: 1,
  ...change,
});

/** The texts of the choices, and why they ended. */
async function written(from: Scheduler, asked: ScheduledRequest, signal?: AbortSignal) {
  const texts = Array.from({ length: asked.choices }, () => "");
  const ends: string[] = [];
  for await (const event of from.write(asked, signal)) {
    if (event.kind === "text") texts[event.choice] += event.text;
    if (event.kind === "end") ends[event.choice] = `${event.reason} ${event.tokens}`;
  }
  return { texts, ends };
}

/** One choice, written by itself. */
async function alone({ sequence, seed = 0, ...options }: ScheduledRequest, choice = 0): Promise<string> {
  let text = "";
  const random = new Random(seed + choice);
  for await (const piece of generate(model, byteTokenizer, sequence, model.newCache(), options, random)) text += piece;
  return text;
}

test("answers that are written together are those that are written alone", async () => {
  const one = fc.record({
    sequence: fc.array(fc.nat(255), { minLength: 1, maxLength: 12 }),
    maxNewTokens: fc.integer({ min: 1, max: 20 }),
    temperature: fc.constantFrom(0, 1),
    seed: fc.nat(9),
    choices: fc.constantFrom(1, 1, 3),
    delay: fc.nat(3),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 6 }), async (asked) => {
      const shared = scheduler();
      const all = await Promise.all(
        asked.map(async ({ delay, ...change }) => {
          await new Promise((resolve) => setTimeout(resolve, delay));
          return written(shared, request(change));
        }),
      );
      for (const [i, { delay: _, ...change }] of asked.entries()) {
        const own = request(change);
        for (const [choice, text] of (all[i]?.texts ?? []).entries()) expect(text).toBe(await alone(own, choice));
        expect(all[i]?.ends).toHaveLength(own.choices);
      }
    }),
    { numRuns: 15 },
  );
});

test("answers share the steps of the model, up to the greatest batch; the others wait", async () => {
  const shared = scheduler(3);
  calls = [];
  await Promise.all([1, 2, 3, 4, 5].map((id) => written(shared, request({ sequence: [256, id], temperature: 1 }))));
  const batches = calls.filter(({ length }) => length === 1).map(({ batch }) => batch);
  expect(Math.max(...batches)).toBe(3);
  expect(batches.length).toBeLessThan(5 * 12);
});

test("more choices than the greatest batch are written all the same", async () => {
  const { texts, ends } = await written(scheduler(2), request({ choices: 5, temperature: 1 }));
  expect(new Set(texts).size).toBeGreaterThan(1);
  expect(ends).toHaveLength(5);
});

test("a long prompt is read in pieces, between which others are written", async () => {
  const shared = scheduler();
  const order: string[] = [];
  const note = async (name: string, asked: ScheduledRequest) => {
    for await (const event of shared.write(asked)) if (event.kind === "text") order.push(name);
  };
  const long = Array.from({ length: 400 }, (_, i) => i % 200);
  await Promise.all([
    note("short", request({ maxNewTokens: 8 })),
    note("long", request({ sequence: long, maxNewTokens: 4 })),
  ]);
  expect(order.indexOf("long")).toBeGreaterThan(order.indexOf("short"));
  const text = await alone(request({ sequence: long, maxNewTokens: 4 }));
  expect((await written(shared, request({ sequence: long, maxNewTokens: 4 }))).texts).toEqual([text]);
});

test("the next question reads only what is new, and says so", async () => {
  const shared = scheduler();
  const begin = async (sequence: number[]) => {
    for await (const event of shared.write(request({ sequence, maxNewTokens: 5 }))) {
      if (event.kind === "begin") return event;
    }
  };
  expect(await begin([256, 70, 71])).toEqual({ kind: "begin", promptTokens: 3, cachedTokens: 0 });
  expect(await begin([256, 70, 71, 72, 73])).toMatchObject({ promptTokens: 5, cachedTokens: 3 });
  expect(await begin([256, 70, 71])).toMatchObject({ cachedTokens: 2 });
});

test("ends at its length, at a stop text, and at the end-of-sequence token", async () => {
  const whole = await alone(request({ maxNewTokens: 20, temperature: 1, seed: 3 }));
  const drawn = { temperature: 1, seed: 3, maxNewTokens: 20 };
  const stop = whole.slice(3, 5);
  const cut = await written(scheduler(), request({ ...drawn, stop: [stop] }));
  expect(cut.texts[0]).toBe(whole.slice(0, whole.indexOf(stop)));
  expect(cut.ends[0]).toMatch(/^stop/);
  expect((await written(scheduler(), request({ maxNewTokens: 3 }))).ends).toEqual(["length 3"]);
});

describe("beam search", () => {
  test("gives what it gives alone, while others are written", async () => {
    const shared = scheduler();
    const options = { numBeams: 3, maxNewTokens: 8, eosId: byteTokenizer.eosId };
    const expected = byteTokenizer.decode(await beamSearch(model, [256, 70], model.newCache(), options));
    const [search, other] = await Promise.all([
      written(shared, request({ numBeams: 3, maxNewTokens: 8 })),
      written(shared, request({ sequence: [256, 71] })),
    ]);
    expect(search.texts).toEqual([expected]);
    expect(other.texts).toEqual([await alone(request({ sequence: [256, 71] }))]);
  });
});

describe("an answer that is no longer wanted", () => {
  const long = (change: Partial<ScheduledRequest> = {}) => request({ maxNewTokens: 500, ...change });

  /** Resolves when the first text has come; the answer goes on. */
  function begun(answer: AsyncGenerator<GenerationEvent, void>): { first: Promise<void>; end: Promise<void> } {
    const first = (async () => {
      for (;;) if ((await answer.next()).value?.kind === "text") return;
    })();
    const end = first.then(async () => {
      for await (const _ of answer);
    });
    end.catch(() => {});
    return { first, end };
  }

  test("stops being written when nobody listens, and leaves the others", async () => {
    const shared = endlessScheduler();
    const other = written(shared, request({ maxNewTokens: 40 }));
    for await (const event of shared.write(long())) if (event.kind === "text") break;
    expect((await other).ends).toEqual(["length 40"]);
    calls = [];
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(calls).toEqual([]);
  });

  test.each([{}, { choices: 3 }])("is broken off by its signal: %o", async (change) => {
    const shared = endlessScheduler();
    const controller = new AbortController();
    const { first, end } = begun(shared.write(long(change), controller.signal));
    await first;
    controller.abort(new Error("enough"));
    await expect(end).rejects.toThrow("enough");
    expect((await written(shared, request())).ends).toEqual(["length 12"]);
  });

  test("in beam search too", async () => {
    const shared = endlessScheduler();
    const controller = new AbortController();
    const search = written(shared, long({ numBeams: 3 }), controller.signal);
    setTimeout(() => controller.abort(new Error("enough")), 10);
    await expect(search).rejects.toThrow("enough");
    calls = [];
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(calls).toEqual([]);
  });

  test("before it began, and while it waits", async () => {
    const shared = endlessScheduler(1);
    await expect(written(shared, long(), AbortSignal.abort(new Error("never")))).rejects.toThrow("never");
    const controller = new AbortController();
    const first = written(shared, request({ maxNewTokens: 60 }));
    const waiting = written(shared, long(), controller.signal);
    controller.abort(new Error("too late"));
    await expect(waiting).rejects.toThrow("too late");
    expect((await first).ends).toEqual(["length 60"]);
  });

  test("an error of the model ends what it was computing, and no more", async () => {
    const shared = endlessScheduler();
    const answers = [begun(shared.write(long())), begun(shared.write(long({ choices: 2 })))];
    await Promise.all(answers.map(({ first }) => first));
    const { forward } = model;
    model.forward = () => Promise.reject(new Error("out of memory"));
    for (const { end } of answers) await expect(end).rejects.toThrow("out of memory");
    await expect(written(shared, request())).rejects.toThrow("out of memory");
    model.forward = forward;
    expect((await written(shared, request())).ends).toEqual(["length 12"]);
  });

  test("stopping ends everything", async () => {
    const shared = endlessScheduler(1);
    const { first, end } = begun(shared.write(long()));
    const waiting = written(shared, long());
    waiting.catch(() => {});
    await first;
    await shared.stop(new Error("released"));
    await expect(end).rejects.toThrow("released");
    await expect(waiting).rejects.toThrow("released");
  });
});

test("rows of the model beyond the tokenizer's tokens are never said", async () => {
  const few = { ...byteTokenizer, vocabSize: 80 };
  const shared = new Scheduler(model, few, { maxBatch: 4, prefixBytes: 0 });
  for (const change of [{ temperature: 1 }, { numBeams: 3 }]) {
    const { texts } = await written(shared, request({ ...change, maxNewTokens: 60 }));
    expect(Math.max(...new TextEncoder().encode(texts[0]))).toBeLessThan(80);
    const all = await written(scheduler(), request({ ...change, maxNewTokens: 60 }));
    expect(Math.max(...new TextEncoder().encode(all.texts[0]))).toBeGreaterThan(80);
  }
});

test("a beam search takes as many places as it has beams", async () => {
  const shared = scheduler(3);
  const order: string[] = [];
  const note = (name: string, asked: ScheduledRequest) => written(shared, asked).then(() => order.push(name));
  await Promise.all([
    note("search", request({ numBeams: 3, maxNewTokens: 8 })),
    note("other", request({ sequence: [256, 71], maxNewTokens: 1 })),
  ]);
  expect(order).toEqual(["search", "other"]);
});

test("where not even a cache can be had, the question fails, and the next one is answered", async () => {
  const shared = scheduler();
  const { newCache } = model;
  model.newCache = (batch) => {
    model.newCache = newCache;
    throw new RangeError(`no memory for ${batch}`);
  };
  await expect(written(shared, request())).rejects.toThrow("no memory");
  expect((await written(shared, request())).texts).toEqual([await alone(request())]);
});
