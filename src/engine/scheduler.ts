/**
 * Writes several answers at once: every step of the language model goes on with all of them, because reading the weights
 * costs more than the arithmetic on a few rows. Answers join and leave between two steps; long prompts are read in
 * pieces, so that they do not hold up the others.
 */

import { beamSteps } from "../generation/beam-search.ts";
import { AnswerWriter, type Ending, type Written } from "../generation/generate.ts";
import type { KVCache } from "../generation/kv-cache.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import { Random } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { PrefixCache } from "./caches.ts";
import type { GenerationEvent, GenerationOptions } from "./engine.ts";
import { Channel } from "./port.ts";

/** Lets the thread see what has happened meanwhile: messages, timers, input. */
export function eventTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
      return;
    }
    // In a browser; a time-out of 0 takes 4 ms there once it is nested.
    const { port1, port2 } = new MessageChannel();
    const arrived = () => {
      port1.close();
      resolve();
    };
    port1.addEventListener("message", arrived);
    port1.start();
    port2.postMessage(undefined);
  });
}

/** Positions of a prompt that are read in one step. */
const pieceLength = 256;
/** Tokens in which a stop text is looked for in beam search; stop texts are short. */
const stopWindow = 8;

export interface SchedulerOptions {
  /** Answers that are written at once; others wait. */
  readonly maxBatch: number;
  /** Memory for what was read of earlier questions. */
  readonly prefixBytes: number;
}

export interface ScheduledRequest extends GenerationOptions {
  /** What the answer follows, at least one position. Together with `maxNewTokens` no longer than the model's context. */
  readonly sequence: readonly Position[];
  readonly maxNewTokens: number;
  readonly stop: readonly string[];
  readonly choices: number;
}

/** A request on its way: waiting, its prompt being read, its choices being written. */
interface Job {
  readonly request: ScheduledRequest;
  readonly events: Channel<GenerationEvent>;
  /** Choices that have not ended. */
  open: number;
  cancelled: boolean;
}

/** A prompt that is being read. */
interface Reading {
  readonly job: Job;
  readonly cache: KVCache;
}

/** One answer that is being written; the rows stand in the order of the batch's sequences. */
interface Row {
  readonly job: Job;
  readonly choice: number;
  readonly writer: AnswerWriter;
  /** Tokens that were written; the last one is yet to be read. */
  readonly ids: number[];
}

interface Search {
  readonly job: Job;
  readonly steps: AsyncGenerator<void, number[]>;
}

/** Sequences that a request takes in the batch, or in a batch of its own. */
function placesOf({ choices, numBeams = 1 }: ScheduledRequest): number {
  return numBeams > 1 ? numBeams : choices;
}

export class Scheduler {
  private readonly model: LanguageModel;
  private readonly tokenizer: Tokenizer;
  private readonly maxBatch: number;
  private readonly prefixes: PrefixCache;
  private waiting: Job[] = [];
  private reading: Reading | undefined;
  private searches: Search[] = [];
  private batch: KVCache;
  private rows: Row[] = [];
  private running: Promise<void> | undefined;

  constructor(model: LanguageModel, tokenizer: Tokenizer, { maxBatch, prefixBytes }: SchedulerOptions) {
    this.model = model;
    this.tokenizer = tokenizer;
    this.maxBatch = maxBatch;
    this.prefixes = new PrefixCache(model, prefixBytes);
    this.batch = model.newCache(0);
  }

  /** The answers, as they are written. Whoever stops listening stops them. */
  async *write(request: ScheduledRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    signal?.throwIfAborted();
    const job: Job = { request, events: new Channel(), open: request.choices, cancelled: false };
    const abort = () => this.fail(job, signal?.reason);
    signal?.addEventListener("abort", abort);
    this.waiting.push(job);
    this.running ??= this.run();
    try {
      yield* job.events;
    } finally {
      job.cancelled = true;
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Ends all answers with an error; resolves when the model is no longer used. */
  async stop(error: unknown): Promise<void> {
    for (const job of this.jobs()) this.fail(job, error);
    await this.running;
  }

  private jobs(): Job[] {
    const begun = [...this.rows, ...this.searches, ...(this.reading ? [this.reading] : [])];
    return [...this.waiting, ...begun.map(({ job }) => job)];
  }

  private async run(): Promise<void> {
    try {
      while (this.jobs().length > 0) {
        await eventTurn();
        this.dropCancelled();
        await this.readPrompt();
        await this.writeTokens();
        await this.search();
      }
    } catch (error) {
      // Nothing of what was begun can be trusted, for instance where memory ran out; what is asked next begins anew.
      for (const job of this.jobs()) this.fail(job, error);
      [this.waiting, this.searches, this.reading] = [[], [], undefined];
      this.dropRows();
    } finally {
      this.running = undefined;
    }
  }

  private dropCancelled(): void {
    this.waiting = this.waiting.filter(({ cancelled }) => !cancelled);
    this.searches = this.searches.filter(({ job }) => !job.cancelled);
    if (this.reading?.job.cancelled) {
      this.keep(this.reading.job.request.sequence, this.reading.cache);
      this.reading = undefined;
    }
    for (let row = this.rows.length - 1; row >= 0; row--) if (this.rows[row]?.job.cancelled) this.takeRow(row);
  }

  /** Reads the next piece of a prompt, that of the request which has waited longest if none is being read. */
  private async readPrompt(): Promise<void> {
    this.reading ??= this.admit();
    if (!this.reading) return;
    const { job, cache } = this.reading;
    const { sequence, numBeams = 1 } = job.request;
    try {
      // Beam search reads the end of the prompt itself.
      const end = Math.min(cache.length + pieceLength, sequence.length);
      if (end === sequence.length && numBeams > 1) {
        this.reading = undefined;
        this.searches.push({ job, steps: this.beams(job, cache) });
        return;
      }
      const piece = sequence.slice(cache.length, end);
      if (end < sequence.length) return await this.model.prefill(piece, cache);
      const scores = await this.model.forward([piece], cache);
      this.reading = undefined;
      this.beginWriting(job, cache, scores.data);
    } catch (error) {
      this.reading = undefined;
      this.fail(job, error);
    }
  }

  private admit(): Reading | undefined {
    const [job] = this.waiting;
    if (!job) return undefined;
    const busy = this.rows.length + this.searches.reduce((sum, search) => sum + placesOf(search.job.request), 0);
    // A request that takes more places than there are is taken when nothing else is there.
    if (busy > 0 && busy + placesOf(job.request) > this.maxBatch) return undefined;
    const { sequence } = job.request;
    const cache = this.prefixes.take(sequence);
    this.waiting.shift();
    job.events.push({ kind: "begin", promptTokens: sequence.length, cachedTokens: cache.length });
    return { job, cache };
  }

  /** The first token of each choice; those that go on join the batch. */
  private beginWriting(job: Job, cache: KVCache, scores: Float32Array): void {
    const { sequence, choices, seed = 0 } = job.request;
    for (let choice = 0; choice < choices; choice++) {
      const row: Row = {
        job,
        choice,
        writer: new AnswerWriter(this.tokenizer, job.request, new Random(seed + choice)),
        ids: [],
      };
      if (this.accept(row, row.writer.take(scores.slice()))) continue;
      this.rows.push(row);
      // The first sequence brings its cache with it, the others are copied beside it.
      if (this.batch.batch === 0 && choices === 1) this.batch = cache;
      else this.batch.push(cache);
    }
    if (this.batch !== cache) this.keep(sequence, cache);
  }

  /** One token more of every answer. */
  private async writeTokens(): Promise<void> {
    if (this.rows.length === 0) return;
    try {
      const next = this.rows.map(({ ids }) => ids.slice(-1));
      const { data } = await this.model.forward(next, this.batch);
      const vocabSize = data.length / next.length;
      // From the last one on, because a row that is taken out is replaced by the last.
      for (let row = this.rows.length - 1; row >= 0; row--) {
        const { writer } = this.rows[row] as Row;
        const written = writer.take(data.subarray(row * vocabSize, (row + 1) * vocabSize));
        if (this.accept(this.rows[row] as Row, written)) this.takeRow(row);
      }
    } catch (error) {
      for (const { job } of this.rows) this.fail(job, error);
      this.dropRows();
    }
  }

  private dropRows(): void {
    this.rows = [];
    this.batch = this.model.newCache(0);
  }

  /** Passes on what was written. Whether the answer has ended. */
  private accept({ job, choice, ids }: Row, { text, ...rest }: Written): boolean {
    if (text) job.events.push({ kind: "text", choice, text });
    if (rest.ending) this.endChoice(job, choice, rest.ending);
    else ids.push(rest.id);
    return rest.ending !== undefined;
  }

  /** Takes an answer out of the batch; what was read of it is kept for the next question. */
  private takeRow(row: number): void {
    const { job, ids } = this.rows[row] as Row;
    const last = this.rows.pop() as Row;
    if (row < this.rows.length) this.rows[row] = last;
    const cache = this.batch.take(row);
    this.keep([...job.request.sequence, ...ids], cache);
  }

  /** @param positions those of the cache, and maybe more that were not read yet */
  private keep(positions: readonly Position[], cache: KVCache): void {
    if (cache.length > 0) this.prefixes.put(positions.slice(0, cache.length), cache);
  }

  /** One step of each beam search. */
  private async search(): Promise<void> {
    for (const search of this.searches) {
      const { job, steps } = search;
      try {
        const { done } = await steps.next();
        if (!done) continue;
      } catch (error) {
        this.fail(job, error);
      }
      this.searches = this.searches.filter((other) => other !== search);
    }
  }

  private async *beams(job: Job, cache: KVCache): AsyncGenerator<void, number[]> {
    const { sequence, stop, maxNewTokens, numBeams = 1 } = job.request;
    const { eosId, vocabSize: knownTokens } = this.tokenizer;
    const isStop = (ids: readonly number[]) =>
      stop.some((end) => this.tokenizer.decode(ids.slice(-stopWindow)).includes(end));
    const rest = sequence.slice(cache.length);
    const ids = yield* beamSteps(this.model, rest, cache, { ...job.request, numBeams, eosId, knownTokens, isStop });
    this.keep(sequence, cache);
    const all = this.tokenizer.decode(ids, { skipSpecial: true });
    const cuts = stop.map((end) => all.indexOf(end)).filter((at) => at >= 0);
    const text = all.slice(0, Math.min(all.length, ...cuts));
    for (let choice = 0; choice < job.request.choices; choice++) {
      if (text) job.events.push({ kind: "text", choice, text });
      const isLong = ids.length >= maxNewTokens && cuts.length === 0;
      this.endChoice(job, choice, { reason: isLong ? "length" : "stop", tokens: ids.length });
    }
    return ids;
  }

  private endChoice(job: Job, choice: number, ending: Ending): void {
    job.events.push({ kind: "end", choice, ...ending });
    job.open--;
    if (job.open === 0) job.events.end();
  }

  private fail(job: Job, error: unknown): void {
    job.cancelled = true;
    job.events.end(error);
  }
}
