/** `POST /v1/embeddings`: texts and images as vectors, in which an image lies near the texts that fit it. */
import { endianness } from "node:os";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { errorResponses, openAiError, toOpenAiError } from "../errors.ts";
import { checkImageCount, fetchImages } from "../images/request-images.ts";
import { RequestAbort, type ServerContext, type ServerEnv } from "../server-context.ts";
import { checkLength } from "./chat-request.ts";
import { imagePart, listOf } from "./chat-schema.ts";
import { checkModel } from "./models.ts";

const text = z.string().min(1);
const maxInputs = 256;

const embeddingRequest = z
  .object({
    model: z.string().optional(),
    input: z
      .union([text, imagePart, listOf(z.union([text, imagePart]), 1, maxInputs)])
      .openapi({ description: "Texts, and images as parts of type image_url. Lists of token ids are not taken." }),
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
  summary: "Texts and images as vectors",
  request: { body: { required: true, content: { "application/json": { schema: embeddingRequest } } } },
  responses: {
    200: {
      description: "A vector of length 1 for each input",
      content: { "application/json": { schema: embeddingResponse } },
    },
    ...errorResponses,
  },
});

export function addEmbeddings(app: OpenAPIHono<ServerEnv>, service: ServerContext): void {
  app.openapi(route, async (c) => {
    const request = c.req.valid("json");
    checkModel(request.model, service);
    const inputs = Array.isArray(request.input) ? request.input : [request.input];
    const { embeddingSize, name } = service.engine.model;
    if (request.dimensions != null && embeddingSize !== undefined && request.dimensions !== embeddingSize) {
      const message = `The embeddings of this model have ${embeddingSize} dimensions, and cannot have another number`;
      throw openAiError(400, { message, param: "dimensions", code: "invalid_value" });
    }
    const embeddings = await embed(service, c.get("client"), inputs, c.get("gone"));
    const data = embeddings.map((embedding, index) => ({
      object: "embedding" as const,
      index,
      embedding: request.encoding_format === "base64" ? toBase64(embedding) : [...embedding],
    }));
    // The engine does not count what it reads here; OpenAI's clients want the fields.
    return c.json({ object: "list" as const, data, model: name, usage: { prompt_tokens: 0, total_tokens: 0 } }, 200);
  });
}

type Input = z.infer<typeof imagePart> | string;

async function embed(
  service: ServerContext,
  client: string,
  inputs: readonly Input[],
  gone: AbortSignal,
): Promise<Float32Array[]> {
  const urls = inputs.flatMap((input) => (typeof input === "string" ? [] : [input.image_url.url]));
  checkImageCount(urls, service.images, "input");
  for (const input of inputs) if (typeof input === "string") checkLength([input], service.engine.model);
  const end = new RequestAbort(service.timeoutSeconds, [gone, service.ended]);
  try {
    const leave = await service.admission.enter(client, end.signal);
    try {
      const images = (await fetchImages(urls, service.images, end.signal)).values();
      const asked = inputs.map((input) =>
        typeof input === "string" ? { text: input } : { image: images.next().value ?? new Uint8Array() },
      );
      return await service.engine.embed(asked, end.signal);
    } finally {
      leave();
    }
  } catch (error) {
    throw end.signal.aborted ? toOpenAiError(end.signal.reason) : error;
  } finally {
    end.close();
  }
}

function toBase64(embedding: Float32Array): string {
  const bytes = Buffer.from(embedding.buffer.slice(embedding.byteOffset, embedding.byteOffset + embedding.byteLength));
  return (endianness() === "LE" ? bytes : bytes.swap32()).toString("base64");
}
