/** The parts of the OpenAPI document that several routes share. */
import { z } from "@hono/zod-openapi";

const error = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  })
  .openapi("Error");

const content = { "application/json": { schema: error } };

/** How a request can fail. */
export const errorResponses = {
  400: { description: "Something is wrong with the request", content },
  401: { description: "The API key is missing or unknown", content },
  403: { description: "The Host header names another server, or a page of another origin asks", content },
  404: { description: "There is no such model", content },
  413: { description: "The body is too large", content },
  415: { description: "The body is not JSON", content },
  429: { description: "Too many questions wait already; `retry-after` says when to ask again", content },
  500: { description: "Something went wrong in the server", content },
  503: { description: "The server stops, or the model starts again", content },
  504: { description: "The answer took too long", content },
};
