/**
 * The HTTP API as a Hono app, to mount in a server of your own.
 *
 * @example
 * ```ts
 * import { MiniGPT4 } from "minigpt4";
 * import { createApp } from "minigpt4/server";
 *
 * const model = await MiniGPT4.load("nano");
 * const app = createApp(model.engine);
 * const response = await app.request("/v1/models");
 * console.log(await response.json());
 * ```
 *
 * @module minigpt4/server
 */
export { type AppOptions, createApp } from "./app.ts";
export { type RunningServer, type ServerOptions, startServer } from "./serve.ts";
export type { ServerEnv } from "./server-context.ts";
