/** A conversation about pictures: several turns, several pictures, answers as streams of text. */
import { Random } from "../tensor/random.ts";
import { type Prompt, type PromptTemplate, type Turn, tokenizePrompt } from "../text/prompts.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { beamSearch } from "./beam-search.ts";
import { Context, fitContext } from "./context.ts";
import type { Decoding, Picture } from "./engine/engine.ts";
import { type Ending, generate } from "./generate.ts";
import type { ImageReader, ImageTokens } from "./image-reader.ts";
import type { LanguageModel } from "./language-model.ts";
import type { Position } from "./reading-graph.ts";

export type { Picture };

export interface AnswerOptions extends Decoding {
  readonly signal?: AbortSignal;
}

/** Positions of prompt and answer together, as in the original demo. */
const maxContext = 2000;
const maxNewTokensByDefault = 300;

/** What answers are made with. */
export interface Parts {
  readonly llm: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly images: ImageReader;
}

/** Streams the answer to a prompt. `context` remembers what was read, for the next prompt that begins alike. */
export async function* answer(
  { llm, tokenizer }: Pick<Parts, "llm" | "tokenizer">,
  prompt: Prompt,
  images: readonly ImageTokens[],
  stop: readonly string[],
  context: Context,
  options: AnswerOptions,
): AsyncGenerator<string, Ending> {
  const { maxNewTokens = maxNewTokensByDefault, numBeams = 1, seed = 0 } = options;
  const length = Math.min(maxContext, llm.config.maxPositionEmbeddings);
  if (maxNewTokens < 1 || maxNewTokens >= length) {
    throw new RangeError(`maxNewTokens is ${maxNewTokens}; it should be between 1 and ${length - 1}`);
  }
  const sequence = fitContext(positionsOf(prompt, images, tokenizer), maxNewTokens, length);
  const rest = context.advance(sequence);
  if (numBeams <= 1) {
    return yield* generate(llm, tokenizer, rest, context.cache, { ...options, maxNewTokens, stop }, new Random(seed));
  }
  const { eosId } = tokenizer;
  const isStop = (ids: readonly number[]) =>
    stop.some((text) => tokenizer.decode(ids.slice(-stopWindow)).includes(text));
  const ids = await beamSearch(llm, rest, context.cache, { ...options, numBeams, maxNewTokens, eosId, isStop });
  const text = tokenizer.decode(ids, { skipSpecial: true });
  const cuts = stop.map((end) => text.indexOf(end)).filter((at) => at >= 0);
  yield text.slice(0, Math.min(text.length, ...cuts));
  return { reason: ids.length < maxNewTokens ? "stop" : "length", tokens: ids.length };
}

/** Tokens in which a stop string is looked for; stop strings are short. */
const stopWindow = 8;

/** A prompt as the language model reads it: token ids, and the image tokens of each picture at its place. */
export function positionsOf(prompt: Prompt, images: readonly ImageTokens[], tokenizer: Tokenizer): Position[] {
  return tokenizePrompt(prompt, tokenizer).flatMap((piece): readonly Position[] => {
    if ("ids" in piece) return piece.ids;
    const tokens = images[piece.image];
    if (!tokens)
      throw new Error(`The prompt has a place for image ${piece.image + 1}, but ${images.length} were given`);
    return tokens;
  });
}

export class Conversation {
  private readonly parts: Parts;
  private readonly template: PromptTemplate;
  private readonly system: string | undefined;
  private readonly context: Context;
  private readonly images: ImageTokens[] = [];
  private turns: Turn[] = [];
  private answering = false;

  constructor(parts: Parts, template: PromptTemplate, system?: string) {
    this.parts = parts;
    this.template = template;
    this.system = system;
    this.context = new Context(parts.llm);
  }

  /** What was said, oldest first. */
  get history(): readonly Turn[] {
    return this.turns;
  }

  /**
   * Asks about the pictures so far and those given now. If the answer is broken off or fails, the conversation is as
   * before the question.
   *
   * @throws Error if the question is empty and there is no picture, or another question is still being answered
   */
  async *ask(
    question: string,
    { images = [], ...options }: AnswerOptions & { readonly images?: readonly Picture[] } = {},
  ): AsyncGenerator<string, void> {
    if (question.trim() === "" && images.length === 0)
      throw new Error("The question is empty; ask something, or give a picture");
    if (this.answering) {
      throw new Error("The previous question is still being answered; wait for its end, or cancel it");
    }
    this.answering = true;
    const before = this.turns;
    const pictures = this.images.length;
    let text = "";
    let finished = false;
    try {
      for (const image of images) this.images.push(await this.parts.images.read(image));
      this.turns = [...before, { role: "user", text: question, images: images.length }];
      const prompt = this.template.render(this.turns, this.system === undefined ? {} : { system: this.system });
      for await (const piece of answer(this.parts, prompt, this.images, this.template.stop, this.context, options)) {
        text += piece;
        yield piece;
      }
      this.turns = [...this.turns, { role: "assistant", text: text.trim() }];
      finished = true;
    } finally {
      this.answering = false;
      if (!finished) {
        this.turns = before;
        this.images.length = pictures;
      }
    }
  }
}
