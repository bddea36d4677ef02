/** `POST /v1/embeddings`: texts and images as vectors of one space. */
import { endianness } from "node:os";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { errorResponses, openAiError, toOpenAiError } from "../errors.ts";
import { checkImageCount, fetchImages } from "../images/request-images.ts";
import { type GenerateOptions, RequestAbort, type ServerContext, type ServerEnv } from "../server-context.ts";
import { checkLength } from "./chat-request.ts";
import { boundedArray, imagePart } from "./chat-schema.ts";
import { checkModel } from "./models.ts";

const text = z.string().min(1);
const maxInputs = 256;

const embeddingRequest = z
  .object({
    model: z.string().optional(),
    input: z
      .union([text, imagePart, boundedArray(z.union([text, imagePart]), 1, maxInputs)])
      .openapi({ description: "Texts, and images as parts of type image_url. Token ids are not supported." }),
    encoding_format: z.enum(["float", "base64"]).nullish(),
    dimensions: z.int().nullish(),
  })
  .openapi("EmbeddingRequest");

const embeddingResponse = z
  .object({
    object: z.literal("list"),
    data: z.array(
      z.object({
        object: z.literal("embedding"),
        index: z.int(),
        embedding: z
          .union([z.array(z.number()), z.string()])
          .openapi({ description: "Numbers, or base64 of little-endian float32." }),
      }),
    ),
    model: z.string(),
    usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  })
  .openapi("EmbeddingResponse");

const route = createRoute({
  method: "post",
  path: "/v1/embeddings",
  summary: "Embed texts and images",
  request: { body: { required: true, content: { "application/json": { schema: embeddingRequest } } } },
  responses: {
    200: {
      description: "An L2-normalized vector for each input",
      content: { "application/json": { schema: embeddingResponse } },
    },
    ...errorResponses,
  },
});

export function addEmbeddings(app: OpenAPIHono<ServerEnv>, context: ServerContext): void {
  app.openapi(route, async (c) => {
    const request = c.req.valid("json");
    checkModel(request.model, context);
    const inputs = Array.isArray(request.input) ? request.input : [request.input];
    const { embeddingSize, name } = context.engine.model;
    if (request.dimensions != null && embeddingSize !== undefined && request.dimensions !== embeddingSize) {
      const message = `dimensions is ${request.dimensions}, but the embeddings of this model always have ${embeddingSize}.`;
      throw openAiError(400, { message, param: "dimensions", code: "invalid_value" });
    }
    const abort = new RequestAbort(context.timeoutSeconds, [c.get("disconnected"), context.abortSignal]);
    const embeddings = await embed(context, inputs, { client: c.get("client"), abort });
    const data = embeddings.map((embedding, index) => ({
      object: "embedding" as const,
      index,
      embedding: request.encoding_format === "base64" ? toBase64(embedding) : [...embedding],
    }));
    // The engine does not count the tokens of embeddings, but OpenAI's clients require the fields.
    return c.json({ object: "list" as const, data, model: name, usage: { prompt_tokens: 0, total_tokens: 0 } }, 200);
  });
}

type Input = z.infer<typeof imagePart> | string;

async function embed(
  context: ServerContext,
  inputs: readonly Input[],
  { client, abort }: GenerateOptions,
): Promise<Float32Array[]> {
  const { engine, queue } = context;
  const { signal } = abort;
  try {
    const urls = inputs.flatMap((input) => (typeof input === "string" ? [] : [input.image_url.url]));
    checkImageCount(urls, context.images, "input");
    for (const input of inputs) if (typeof input === "string") checkLength([input], engine.model);
    const releaseSlot = await queue.acquire(client, signal);
    try {
      const images = (await fetchImages(urls, context.images, signal)).values();
      const engineInputs = inputs.map((input) =>
        typeof input === "string" ? { text: input } : { image: images.next().value ?? new Uint8Array() },
      );
      return await engine.embed(engineInputs, signal);
    } finally {
      releaseSlot();
    }
  } catch (error) {
    throw signal.aborted ? toOpenAiError(signal.reason) : error;
  } finally {
    abort.close();
  }
}

function toBase64(embedding: Float32Array): string {
  const bytes = Buffer.from(embedding.buffer.slice(embedding.byteOffset, embedding.byteOffset + embedding.byteLength));
  return (endianness() === "LE" ? bytes : bytes.swap32()).toString("base64");
}
