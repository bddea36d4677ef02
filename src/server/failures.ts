/** From whatever went wrong to what a client is told of it. */
import { HTTPException } from "hono/http-exception";
import type { z } from "zod";
import { EngineLostError, QuestionError } from "../chat/engine/engine.ts";
import { OpenAiError, openAiError } from "./openai-error.ts";
import { ImageRefusedError } from "./pictures/image-refused.ts";

const secondsToRestart = 5;

const questionCodes: Readonly<Record<QuestionError["code"], string>> = {
  picture: "invalid_image",
  length: "context_length_exceeded",
  value: "invalid_value",
};

/** The error as a client may see it; of what nobody expected only that it happened. */
export function toOpenAiError(error: unknown): OpenAiError {
  if (error instanceof OpenAiError) return error;
  if (error instanceof QuestionError)
    return openAiError(400, { message: error.message, code: questionCodes[error.code] });
  if (error instanceof ImageRefusedError) return openAiError(400, { message: error.message, code: error.code });
  if (error instanceof EngineLostError) {
    const message = "The model broke down and starts again; ask once more";
    return openAiError(503, { message, code: "engine_lost" }, { "retry-after": String(secondsToRestart) });
  }
  if (error instanceof HTTPException && error.status === 415) {
    return openAiError(415, { message: "The body should be JSON, with the header content-type: application/json" });
  }
  if (error instanceof HTTPException && error.status < 500)
    return openAiError(error.status, { message: error.message });
  return openAiError(500, { message: "Something went wrong in the server; its log says what" });
}

/** Whether whoever runs the server should know of it: the model broke down, or something that nobody expected. */
export function isForTheLog(error: unknown): boolean {
  return error instanceof EngineLostError || toOpenAiError(error).status === 500;
}

/** What a schema found wrong first, with the place of it. */
export function invalidRequest({ issues }: z.ZodError): OpenAiError {
  const issue = deepest(issues);
  const param = issue ? pathText(issue.path) : "";
  return openAiError(400, {
    message: `${param === "" ? "The request" : param}: ${issue?.message ?? "is not valid"}`,
    param: param === "" ? null : param,
    code: "invalid_value",
  });
}

type Issue = z.ZodError["issues"][number];

/** Of the alternatives of a union, that which fits furthest is what was meant. */
function deepest(issues: readonly Issue[]): Issue | undefined {
  const [first] = issues;
  if (first?.code !== "invalid_union") return first;
  const branches = first.errors
    .flatMap((branch) => deepest(branch) ?? [])
    .sort((a, b) => b.path.length - a.path.length);
  const [best] = branches;
  if (!best || best.path.length === 0) return first;
  return { ...best, path: [...first.path, ...best.path] };
}

function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    return text === "" ? String(key) : `${text}.${String(key)}`;
  }, "");
}
