/** The peer of decoding: llama.cpp through node-llama-cpp, with its prebuilt CPU library. */

/** What is used of node-llama-cpp; it is installed by `main.ts`, so its own types may not be there yet. */
interface Llama {
  loadModel(options: { modelPath: string }): Promise<LlamaModel>;
  dispose(): Promise<void>;
}
interface LlamaModel {
  createContext(options: { contextSize: number; batchSize: number; threads: number }): Promise<LlamaContext>;
}
interface LlamaContext {
  getSequence(): LlamaSequence;
}
interface LlamaSequence {
  readonly nextTokenIndex: number;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(
    tokens: readonly number[],
    options: { temperature: number; yieldEogToken: boolean },
  ): AsyncGenerator<number, void, void>;
  eraseContextTokenRanges(ranges: readonly { start: number; end: number }[]): Promise<void>;
}

const packageName: string = "node-llama-cpp";

/** A model in llama.cpp that reads and writes greedily. */
export class LlamaCpp {
  private readonly llama: Llama;
  private readonly sequence: LlamaSequence;

  private constructor(llama: Llama, sequence: LlamaSequence) {
    this.llama = llama;
    this.sequence = sequence;
  }

  /** @param contextSize positions that are read and written, at most */
  static async load(modelPath: string, threads: number, contextSize: number): Promise<LlamaCpp> {
    const { getLlama } = await import(packageName);
    const llama: Llama = await getLlama({ build: "never", gpu: false, maxThreads: threads, logLevel: "error" });
    const model = await llama.loadModel({ modelPath });
    const context = await model.createContext({ contextSize, batchSize: 512, threads });
    return new LlamaCpp(llama, context.getSequence());
  }

  /** Reads tokens after those it holds. */
  async read(tokens: readonly number[]): Promise<void> {
    await this.sequence.evaluateWithoutGeneratingNewTokens(tokens);
  }

  /** Writes `count` tokens after `first`. */
  async write(first: number, count: number): Promise<void> {
    let written = 0;
    for await (const _ of this.sequence.evaluate([first], { temperature: 0, yieldEogToken: true })) {
      if (++written === count) break;
    }
  }

  /** Forgets all positions from `length` on. */
  async truncate(length: number): Promise<void> {
    const end = this.sequence.nextTokenIndex;
    if (end > length) await this.sequence.eraseContextTokenRanges([{ start: length, end }]);
  }

  dispose(): Promise<void> {
    return this.llama.dispose();
  }
}
