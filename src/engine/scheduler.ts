/**
 * Continuous batching: all running generations advance by one token per forward pass, and requests join and leave between two
 * steps. Long prompts are prefilled in chunks, so that they do not hold up the others.
 */

import { BeamSearchDecoder } from "../generation/beam-search.ts";
import { Batch, type Decoder, type Finish, type NextToken, SamplingDecoder } from "../generation/generate.ts";
import type { KVCache } from "../generation/kv-cache.ts";
import type { LanguageModel, Position } from "../generation/language-model.ts";
import { Random } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/load.ts";
import { PrefixCache } from "./caches.ts";
import type { GenerationEvent, GenerationOptions } from "./engine.ts";
import { Channel } from "./port.ts";

/** Tokens of a prompt that are prefilled in one step. */
const chunkLength = 256;
/** Last tokens in which beam search looks for a stop string; stop strings are short. */
const stopWindow = 8;

export interface SchedulerOptions {
  /** Sequences that are generated at the same time; further requests wait. */
  readonly maxBatch: number;
  /** Memory for the KV caches of earlier requests, in bytes. */
  readonly prefixBytes: number;
}

export interface ScheduledRequest extends GenerationOptions {
  /** The prompt: at least one position, and together with `maxNewTokens` no longer than the model's context. */
  readonly sequence: readonly Position[];
  readonly maxNewTokens: number;
  readonly stop: readonly string[];
  readonly choices: number;
}

/** A request in progress: waiting, in prefill, or decoding. */
interface Job {
  readonly request: ScheduledRequest;
  readonly events: Channel<GenerationEvent>;
  /** Choices that have not finished. */
  open: number;
  cancelled: boolean;
}

/** A prompt in prefill. */
interface PrefillJob {
  readonly job: Job;
  readonly cache: KVCache;
}

/** The decoder of a job, which reports text and finish as events. */
interface JobDecoder extends Decoder {
  readonly job: Job;
  /** Generated token ids, where the cache is worth keeping for the next request. */
  readonly ids?: readonly number[];
}

/** Rows of a batch that a request takes. */
function countRows({ choices, numBeams = 1 }: ScheduledRequest): number {
  return numBeams > 1 ? numBeams : choices;
}

export class Scheduler {
  private readonly model: LanguageModel;
  private readonly tokenizer: Tokenizer;
  private readonly maxBatch: number;
  private readonly prefixes: PrefixCache;
  private waiting: Job[] = [];
  private prefilling: PrefillJob | undefined;
  private readonly batch: Batch<JobDecoder>;
  /** Each beam search has a batch to itself. */
  private searches: Batch<JobDecoder>[] = [];
  private running: Promise<void> | undefined;

  constructor(model: LanguageModel, tokenizer: Tokenizer, { maxBatch, prefixBytes }: SchedulerOptions) {
    this.model = model;
    this.tokenizer = tokenizer;
    this.maxBatch = maxBatch;
    this.prefixes = new PrefixCache(model, prefixBytes);
    this.batch = new Batch(model);
  }

  /** Streams the events of a request. To stop iterating cancels it. */
  async *generate(request: ScheduledRequest, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
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

  /** Fails all requests with an error; resolves when the model is no longer in use. */
  async stop(error: unknown): Promise<void> {
    for (const job of this.jobs()) this.fail(job, error);
    await this.running;
  }

  private get batches(): readonly Batch<JobDecoder>[] {
    return [this.batch, ...this.searches];
  }

  private decoders(): readonly JobDecoder[] {
    return this.batches.flatMap(({ decoders }) => decoders);
  }

  private jobs(): Job[] {
    const running = this.decoders().map(({ job }) => job);
    return [...this.waiting, ...running, ...(this.prefilling ? [this.prefilling.job] : [])];
  }

  private async run(): Promise<void> {
    try {
      while (this.jobs().length > 0) {
        await yieldToEventLoop();
        this.dropCancelled();
        await this.prefill();
        for (const batch of this.batches) await this.step(batch);
        this.searches = this.searches.filter(({ decoders }) => decoders.length > 0);
      }
    } catch (error) {
      // The state may be inconsistent, for instance when memory ran out. Later requests start from an empty one.
      for (const job of this.jobs()) this.fail(job, error);
      [this.waiting, this.searches, this.prefilling] = [[], [], undefined];
      this.batch.clear();
    } finally {
      this.running = undefined;
    }
  }

  private dropCancelled(): void {
    this.waiting = this.waiting.filter(({ cancelled }) => !cancelled);
    this.searches = this.searches.filter(({ decoders }) => decoders.every(({ job }) => !job.cancelled));
    if (this.prefilling?.job.cancelled) {
      this.keep(this.prefilling.job.request.sequence, this.prefilling.cache);
      this.prefilling = undefined;
    }
    for (const decoder of this.batch.decoders) {
      if (decoder.job.cancelled) this.keepGenerated(decoder, this.batch.remove(decoder));
    }
  }

  /** Prefills the next chunk of a prompt; if none is in prefill, that of the request that has waited longest. */
  private async prefill(): Promise<void> {
    this.prefilling ??= this.admit();
    if (!this.prefilling) return;
    const { job, cache } = this.prefilling;
    const { sequence } = job.request;
    try {
      const end = Math.min(cache.length + chunkLength, sequence.length);
      const chunk = sequence.slice(cache.length, end);
      if (end < sequence.length) return await this.model.prefill(chunk, cache);
      const logits = await this.model.forward([chunk], cache);
      this.prefilling = undefined;
      this.startDecoding(job, cache, logits.data);
    } catch (error) {
      this.prefilling = undefined;
      this.fail(job, error);
    }
  }

  private admit(): PrefillJob | undefined {
    const [job] = this.waiting;
    if (!job) return undefined;
    const { request } = job;
    const searching = this.searches.flatMap(({ decoders }) => decoders.map(({ job }) => countRows(job.request)));
    const busy = searching.reduce((sum, rows) => sum + rows, this.batch.decoders.length);
    // A request that needs more rows than there are is admitted when nothing else runs.
    if (busy > 0 && busy + countRows(request) > this.maxBatch) return undefined;
    const cache = this.prefixes.take(request.sequence);
    this.waiting.shift();
    job.events.push({ kind: "begin", promptTokens: request.sequence.length, cachedTokens: cache.length });
    return { job, cache };
  }

  /** The first token of each choice; those that continue join a batch. */
  private startDecoding(job: Job, cache: KVCache, logits: Float32Array): void {
    const { sequence, choices, numBeams = 1 } = job.request;
    if (numBeams > 1) {
      const search = new Batch<JobDecoder>(this.model);
      search.add(this.beamDecoder(job, numBeams), logits, { cache, takesCache: false });
      this.searches.push(search);
    } else {
      for (let choice = 0; choice < choices; choice++) {
        this.batch.add(this.samplingDecoder(job, choice), logits.slice(), { cache, takesCache: choices === 1 });
      }
    }
    if (!this.batch.uses(cache)) this.keep(sequence, cache);
  }

  /** One more token of every generation in a batch. */
  private async step(batch: Batch<JobDecoder>): Promise<void> {
    try {
      for (const { decoder, cache } of await batch.step()) this.keepGenerated(decoder, cache);
    } catch (error) {
      for (const { job } of batch.decoders) this.fail(job, error);
      batch.clear();
    }
  }

  private samplingDecoder(job: Job, choice: number): JobDecoder {
    const { seed = 0 } = job.request;
    const decoder = new SamplingDecoder(this.tokenizer, job.request, new Random(seed + choice));
    return {
      job,
      ids: decoder.ids,
      next: (logits) => {
        const next = decoder.next(logits);
        this.report(job, { choice, text: decoder.takeText(), finish: decoder.finish });
        return next;
      },
    };
  }

  /** The best sequence is the text of all choices. */
  private beamDecoder(job: Job, numBeams: number): JobDecoder {
    const { stop, maxNewTokens, choices } = job.request;
    const { tokenizer } = this;
    const { eosId, vocabSize } = tokenizer;
    const isStop = (ids: readonly number[]) =>
      stop.some((end) => tokenizer.decode(ids.slice(-stopWindow)).includes(end));
    const decoder = new BeamSearchDecoder({ ...job.request, numBeams, eosId, vocabSize, isStop });
    const report = () => {
      const ids = decoder.best;
      const all = tokenizer.decode(ids, { skipSpecial: true });
      const cuts = stop.map((end) => all.indexOf(end)).filter((at) => at >= 0);
      const text = all.slice(0, Math.min(all.length, ...cuts));
      const reason = ids.length >= maxNewTokens && cuts.length === 0 ? "length" : "stop";
      for (let choice = 0; choice < choices; choice++) {
        this.report(job, { choice, text, finish: { reason, tokens: ids.length } });
      }
    };
    return {
      job,
      next(logits): readonly NextToken[] {
        const next = decoder.next(logits);
        if (next.length === 0) report();
        return next;
      },
    };
  }

  private report(job: Job, { choice, text, finish }: { choice: number; text: string; finish?: Finish }): void {
    if (text) job.events.push({ kind: "text", choice, text });
    if (!finish) return;
    job.events.push({ kind: "end", choice, ...finish });
    job.open--;
    if (job.open === 0) job.events.end();
  }

  /** Keeps the cache of a generation that has left the batch, for a request that continues the conversation. */
  private keepGenerated({ job, ids }: JobDecoder, cache: KVCache): void {
    if (ids) this.keep([...job.request.sequence, ...ids], cache);
  }

  /** @param positions those in the cache, possibly followed by others */
  private keep(positions: readonly Position[], cache: KVCache): void {
    if (cache.length > 0) this.prefixes.put(positions.slice(0, cache.length), cache);
  }

  private fail(job: Job, error: unknown): void {
    job.cancelled = true;
    job.events.end(error);
  }
}

/** Lets the thread handle pending events: messages, timers, input. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
      return;
    }
    // In a browser, where a nested timeout of 0 takes 4 ms.
    const { port1, port2 } = new MessageChannel();
    const onMessage = () => {
      port1.close();
      resolve();
    };
    port1.addEventListener("message", onMessage);
    port1.start();
    port2.postMessage(undefined);
  });
}
