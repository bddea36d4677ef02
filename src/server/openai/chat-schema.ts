/** What `POST /v1/chat/completions` takes and gives: the schemas that validate, and of which the OpenAPI document is made. */
import { z } from "@hono/zod-openapi";
import { openAiError } from "../errors.ts";

const textPart = z.object({ type: z.literal("text"), text: z.string() });

/** An image as OpenAI's API names it; `detail` is taken and ignored, as the encoder has one size. */
export const imagePart = z
  .object({
    type: z.literal("image_url"),
    image_url: z.object({
      url: z
        .string()
        .min(1)
        .openapi({ description: "A data URL, or an http(s) address where the server allows those." }),
      detail: z.string().nullish(),
    }),
  })
  .openapi("ImagePart");

/** A list that is too long is refused as a whole: to list what is wrong with each of a million parts would break the validator. */
export function listOf<Item extends z.ZodType>(item: Item, least: number, most: number) {
  const refuseLong = (value: unknown, context: z.RefinementCtx) => {
    if (!Array.isArray(value) || value.length <= most) return value;
    context.addIssue({ code: "custom", message: `There are ${value.length} of them; at most ${most} are taken` });
    return z.NEVER;
  };
  return z.preprocess(refuseLong, z.array(item).min(least).max(most));
}

const maxParts = 1000;
const textContent = z.union([z.string(), listOf(textPart, 0, maxParts)]);
const userPart = z.discriminatedUnion("type", [textPart, imagePart], {
  error: "The type of a part should be text or image_url; this model takes nothing else",
});
const userContent = z.union([z.string(), listOf(userPart, 0, maxParts)]);

const message = z
  .discriminatedUnion(
    "role",
    [
      z.object({ role: z.literal("system"), content: textContent }),
      z.object({ role: z.literal("developer"), content: textContent }),
      z.object({ role: z.literal("user"), content: userContent }),
      z.object({ role: z.literal("assistant"), content: textContent.nullish() }),
    ],
    { error: "The role should be system, developer, user or assistant" },
  )
  .openapi("Message");

/** StopFilter compares the end of the text with the beginnings of these, so they are kept short. */
const stopText = z.string().min(1).max(1000);

export const chatRequest = z
  .looseObject({
    model: z.string().optional().openapi({ description: "By default the model that the server has." }),
    messages: listOf(message, 1, 10_000),
    stream: z.boolean().nullish(),
    stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
    n: z.int().min(1).max(16).nullish(),
    stop: z.union([stopText, listOf(stopText, 0, 4)]).nullish(),
    seed: z.int().nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    max_tokens: z.int().min(1).nullish(),
    max_completion_tokens: z.int().min(1).nullish(),
    top_k: z.int().min(0).nullish().openapi({ description: "Draw among so many likeliest tokens (extension)." }),
    repetition_penalty: z
      .number()
      .min(0.1)
      .max(10)
      .nullish()
      .openapi({ description: "Above 1, said words become less likely (extension)." }),
    num_beams: z
      .int()
      .min(1)
      .max(10)
      .nullish()
      .openapi({ description: "Search for the best of so many answers; nothing is drawn then (extension)." }),
    length_penalty: z
      .number()
      .min(-10)
      .max(10)
      .nullish()
      .openapi({ description: "Above 1, beam search prefers longer answers (extension)." }),
  })
  .openapi("ChatCompletionRequest");

export type ChatRequest = z.infer<typeof chatRequest>;
export type Message = z.infer<typeof message>;

const usage = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }),
  })
  .openapi("Usage");

export type Usage = z.infer<typeof usage>;

const finishReason = z.enum(["stop", "length"]);
const head = { id: z.string(), created: z.int(), model: z.string() };

export const chatCompletion = z
  .object({
    ...head,
    object: z.literal("chat.completion"),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
        logprobs: z.null(),
        finish_reason: finishReason,
      }),
    ),
    usage,
  })
  .openapi("ChatCompletion");

export const chatChunk = z
  .object({
    ...head,
    object: z.literal("chat.completion.chunk"),
    choices: z.array(
      z.object({
        index: z.int(),
        delta: z.object({ role: z.literal("assistant").optional(), content: z.string().optional() }),
        logprobs: z.null(),
        finish_reason: finishReason.nullable(),
      }),
    ),
    // Not `nullish`, which the description of a named schema cannot say.
    usage: z.union([usage, z.null()]).optional(),
  })
  .openapi("ChatCompletionChunk");

export type ChatChunk = z.infer<typeof chatChunk>;

/** Parameters of OpenAI's API that this server does not have, and the values with which they change nothing. */
const unsupported: Readonly<Record<string, (value: unknown) => boolean>> = {
  tools: isEmpty,
  functions: isEmpty,
  logprobs: (value) => value === false,
  top_logprobs: (value) => value === 0,
  logit_bias: isEmpty,
  response_format: (value) => typeof value === "object" && value !== null && "type" in value && value.type === "text",
  modalities: (value) => Array.isArray(value) && value.every((one) => one === "text"),
  audio: () => false,
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  web_search_options: () => false,
};

/** Refuses what would have to change the answer and cannot; other unknown parameters are ignored. @throws OpenAiError 400 */
export function refuseUnsupported(request: Readonly<Record<string, unknown>>): void {
  for (const [param, isHarmless] of Object.entries(unsupported)) {
    const value = request[param];
    if (value === undefined || value === null || isHarmless(value)) continue;
    const advice = param.endsWith("_penalty") ? "; repetition_penalty is what it has" : "; leave it out";
    throw openAiError(400, {
      message: `This server cannot honour ${param}${advice}`,
      param,
      code: "unsupported_parameter",
    });
  }
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
