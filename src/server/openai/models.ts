/** `GET /v1/models`, `GET /v1/models/{model}` and `GET /health`. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { quote } from "../../files/errors.ts";
import { errorResponses, openAiError } from "../errors.ts";
import type { ServerContext, ServerEnv } from "../server-context.ts";

const model = z
  .object({
    id: z.string(),
    object: z.literal("model"),
    created: z.int(),
    owned_by: z.string(),
    context_length: z.int().openapi({ description: "Maximum number of tokens of prompt and completion together." }),
    tokens_per_image: z.int(),
    embedding_size: z.int().nullable().openapi({ description: "null if the model has no embeddings." }),
  })
  .openapi("Model");

const listRoute = createRoute({
  method: "get",
  path: "/v1/models",
  summary: "List the models",
  responses: {
    200: {
      description: "The server has one model",
      content: { "application/json": { schema: z.object({ object: z.literal("list"), data: z.array(model) }) } },
    },
    401: errorResponses[401],
    403: errorResponses[403],
  },
});

const oneRoute = createRoute({
  method: "get",
  path: "/v1/models/{model}",
  summary: "Get a model",
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
  review: z
    .literal(true)
    .optional()
    .openapi({ description: "Present if the server has a curation project to review." }),
});

const healthRoute = createRoute({
  method: "get",
  path: "/health",
  summary: "Check that the server is running",
  responses: {
    200: {
      description: "The server is running",
      content: { "application/json": { schema: health } },
    },
    403: errorResponses[403],
    503: errorResponses[503],
  },
});

/** @param review whether the server has a curation project to review */
export function addModels(app: OpenAPIHono<ServerEnv>, context: ServerContext, review: boolean): void {
  const { name, contextLength, tokensPerImage, embeddingSize } = context.engine.model;
  const info = {
    id: name,
    object: "model" as const,
    created: context.created,
    owned_by: "minigpt4",
    context_length: contextLength,
    tokens_per_image: tokensPerImage,
    embedding_size: embeddingSize ?? null,
  };
  app.openapi(listRoute, (c) => c.json({ object: "list" as const, data: [info] }, 200));
  app.openapi(oneRoute, (c) => {
    checkModel(c.req.valid("param").model, context);
    return c.json(info, 200);
  });
  app.openapi(healthRoute, (c) =>
    c.json({ status: "ok" as const, model: name, review: review ? (true as const) : undefined }, 200),
  );
}

/** @throws OpenAiError 404 if the request names another model than the server's */
export function checkModel(requested: string | undefined, { engine }: ServerContext): void {
  if (requested === undefined || requested === engine.model.name) return;
  throw openAiError(404, {
    message: `Unknown model ${quote(requested)}. This server has "${engine.model.name}".`,
    param: "model",
    code: "model_not_found",
  });
}
