/** `GET /v1/models`, `GET /v1/models/{model}` and `GET /health`: what the server has. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { errorResponses, openAiError } from "../errors.ts";
import type { ServerContext, ServerEnv } from "../server-context.ts";

const model = z
  .object({
    id: z.string(),
    object: z.literal("model"),
    created: z.int(),
    owned_by: z.string(),
    context_length: z.int().openapi({ description: "Tokens of messages and answer together." }),
    tokens_per_image: z.int(),
    embedding_size: z.int().nullable().openapi({ description: "null: the model has no embeddings." }),
  })
  .openapi("Model");

const listRoute = createRoute({
  method: "get",
  path: "/v1/models",
  summary: "The models that there are",
  responses: {
    200: {
      description: "One model",
      content: { "application/json": { schema: z.object({ object: z.literal("list"), data: z.array(model) }) } },
    },
    401: errorResponses[401],
    403: errorResponses[403],
  },
});

const oneRoute = createRoute({
  method: "get",
  path: "/v1/models/{model}",
  summary: "One model",
  request: { params: z.object({ model: z.string().openapi({ param: { name: "model", in: "path" } }) }) },
  responses: {
    200: { description: "The model", content: { "application/json": { schema: model } } },
    401: errorResponses[401],
    403: errorResponses[403],
    404: errorResponses[404],
  },
});

const health = z.object({
  status: z.literal("ok"),
  model: z.string(),
  review: z.literal(true).optional().openapi({ description: "There is a curation project to review." }),
});

const healthRoute = createRoute({
  method: "get",
  path: "/health",
  summary: "Whether the server answers",
  responses: {
    200: {
      description: "It does",
      content: { "application/json": { schema: health } },
    },
    403: errorResponses[403],
    503: errorResponses[503],
  },
});

/** @param review whether there is a curation project to review */
export function addModels(app: OpenAPIHono<ServerEnv>, service: ServerContext, review: boolean): void {
  const { name, contextLength, tokensPerImage, embeddingSize } = service.engine.model;
  const card = {
    id: name,
    object: "model" as const,
    created: service.created,
    owned_by: "minigpt4",
    context_length: contextLength,
    tokens_per_image: tokensPerImage,
    embedding_size: embeddingSize ?? null,
  };
  app.openapi(listRoute, (c) => c.json({ object: "list" as const, data: [card] }, 200));
  app.openapi(oneRoute, (c) => {
    checkModel(c.req.valid("param").model, service);
    return c.json(card, 200);
  });
  app.openapi(healthRoute, (c) => c.json({ status: "ok" as const, model: name, ...(review && { review }) }, 200));
}

/** @throws OpenAiError 404 if another model than the server's is asked for */
export function checkModel(asked: string | undefined, { engine }: ServerContext): void {
  if (asked === undefined || asked === engine.model.name) return;
  throw openAiError(404, {
    message: `There is no model "${asked.slice(0, 100)}" here; this server has "${engine.model.name}"`,
    param: "model",
    code: "model_not_found",
  });
}
