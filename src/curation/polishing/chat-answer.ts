/** What a service with OpenAI's chat API answers. */
import { z } from "zod";

export interface ChatAnswer {
  /** Empty if there is none. */
  readonly text: string;
  /** What the model says of why it does not answer. */
  readonly refusal?: string;
  readonly finishReason?: string;
  /** Undefined if the service does not count. */
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number };
}

const count = z.int().nonnegative();
const completionSchema = z.object({
  choices: z.array(
    z.object({
      message: z.object({ content: z.string().nullish(), refusal: z.string().nullish().catch(undefined) }),
      finish_reason: z.string().nullish().catch(undefined),
    }),
  ),
  usage: z.object({ prompt_tokens: count, completion_tokens: count }).nullish().catch(undefined),
});
const modelsSchema = z.object({ data: z.array(z.object({ id: z.string() })) });
const errorSchema = z.object({ error: z.looseObject({ message: z.string(), code: z.unknown() }) });

/** @throws Error if it is no chat completion */
export function readAnswer(data: unknown): ChatAnswer {
  const { choices, usage } = completionSchema.parse(data);
  const { message, finish_reason: finishReason } = choices[0] ?? {};
  return {
    text: message?.content ?? "",
    ...(message?.refusal && { refusal: message.refusal }),
    ...(finishReason && { finishReason }),
    ...(usage && { usage: { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens } }),
  };
}

/** The names of a service's models. @throws Error if it is no list of models */
export function readModels(data: unknown): string[] {
  return modelsSchema.parse(data).data.map(({ id }) => id);
}

/** The error that an answer with the status of success may be. */
export function readError(data: unknown): { readonly message: string; readonly code?: unknown } | undefined {
  return errorSchema.safeParse(data).data?.error;
}
