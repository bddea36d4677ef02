/** Schemas of `POST /v1/chat/completions`: they validate requests, and generate the OpenAPI document. */
import { z } from "@hono/zod-openapi";
import { openAiError } from "../errors.ts";

const textPart = z.object({ type: z.literal("text"), text: z.string() });

/** An image in OpenAI's format. `detail` is ignored, since the encoder has one input size. */
export const imagePart = z
  .object({
    type: z.literal("image_url"),
    image_url: z.object({
      url: z
        .string()
        .min(1)
        .openapi({ description: "A data URL, or an http(s) URL if the server allows remote images." }),
      detail: z.string().nullish(),
    }),
  })
  .openapi("ImagePart");

/** An array whose length is checked before its items: collecting the errors of a million items would exhaust the validator. */
export function boundedArray<Item extends z.ZodType>(item: Item, min: number, max: number) {
  const rejectLong = (value: unknown, context: z.RefinementCtx) => {
    if (!Array.isArray(value) || value.length <= max) return value;
    context.addIssue({ code: "custom", message: `has ${value.length} items, expected at most ${max}` });
    return z.NEVER;
  };
  return z.preprocess(rejectLong, z.array(item).min(min).max(max));
}

const maxParts = 1000;
const textContent = z.union([z.string(), boundedArray(textPart, 0, maxParts)]);
const userPart = z.discriminatedUnion("type", [textPart, imagePart], {
  error: "expected a part of type text or image_url",
});
const userContent = z.union([z.string(), boundedArray(userPart, 0, maxParts)]);

const message = z
  .discriminatedUnion(
    "role",
    [
      z.object({ role: z.literal("system"), content: textContent }),
      z.object({ role: z.literal("developer"), content: textContent }),
      z.object({ role: z.literal("user"), content: userContent }),
      z.object({ role: z.literal("assistant"), content: textContent.nullish() }),
    ],
    { error: "expected one of the roles system, developer, user and assistant" },
  )
  .openapi("Message");

/** Bounded, because the end of the generated text is compared with each prefix of a stop string. */
const stopText = z.string().min(1).max(1000);

export const chatRequest = z
  .looseObject({
    model: z.string().optional().openapi({ description: "Optional: the server has one model." }),
    messages: boundedArray(message, 1, 10_000),
    stream: z.boolean().nullish(),
    stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
    n: z.int().min(1).max(16).nullish(),
    stop: z.union([stopText, boundedArray(stopText, 0, 4)]).nullish(),
    seed: z.int().nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    max_tokens: z.int().min(1).nullish(),
    max_completion_tokens: z.int().min(1).nullish(),
    top_k: z
      .int()
      .min(0)
      .nullish()
      .openapi({ description: "Sample from the k most likely tokens; 0 for all (extension)." }),
    repetition_penalty: z
      .number()
      .min(0.1)
      .max(10)
      .nullish()
      .openapi({ description: "Above 1, tokens that occurred before become less likely (extension)." }),
    num_beams: z
      .int()
      .min(1)
      .max(10)
      .nullish()
      .openapi({ description: "Number of beams; above 1, beam search without sampling (extension)." }),
    length_penalty: z
      .number()
      .min(-10)
      .max(10)
      .nullish()
      .openapi({ description: "Above 1, beam search prefers longer completions (extension)." }),
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
    // Not `nullish`, which OpenAPI cannot express for a named schema.
    usage: z.union([usage, z.null()]).optional(),
  })
  .openapi("ChatCompletionChunk");

export type ChatChunk = z.infer<typeof chatChunk>;

/** Parameters of OpenAI's API that this server does not support, and the values for which they have no effect. */
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

/** Rejects unsupported parameters that would change the completion; other unknown parameters are ignored. @throws OpenAiError 400 */
export function rejectUnsupported(request: Readonly<Record<string, unknown>>): void {
  for (const [param, hasNoEffect] of Object.entries(unsupported)) {
    const value = request[param];
    if (value === undefined || value === null || hasNoEffect(value)) continue;
    const advice = param.endsWith("_penalty") ? "Use repetition_penalty instead." : "Remove it.";
    throw openAiError(400, {
      message: `This server does not support ${param}. ${advice}`,
      param,
      code: "unsupported_parameter",
    });
  }
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
