/** What the routes of the server share. */
import type { HttpBindings } from "@hono/node-server";
import type { Logger } from "pino";
import type { Engine } from "../chat/engine/engine.ts";
import type { Admission } from "./admission.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { PictureLimits } from "./pictures/pictures.ts";

export interface Service {
  readonly engine: Engine;
  readonly admission: Admission;
  readonly metrics: ServerMetrics;
  readonly log: Logger;
  readonly pictures: PictureLimits;
  /** When the server began, in seconds since 1970: models have a date in OpenAI's API. */
  readonly created: number;
  /** Longest time from a request to the end of its answer. */
  readonly timeoutSeconds: number;
  /** How long a client may leave a stream unread. */
  readonly writeTimeoutSeconds: number;
  /** Aborted when running answers must end; its reason is what their clients are told. */
  readonly ended: AbortSignal;
}

/** What the server knows of a request. */
export interface ServerEnv {
  Bindings: HttpBindings;
  Variables: {
    /** Aborted when the client goes away. */
    gone: AbortSignal;
    /** The API key that was sent, where the server wants one. */
    key?: string;
    /** Among whom places are shared out: the API key, or the address that the request comes from. */
    client: string;
  };
}
