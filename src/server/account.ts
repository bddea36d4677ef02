/** A line in the log and a number in the metrics for each request, when its answer has ended. */
import type { MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { ServerEnv, Service } from "./service.ts";

/** What the log says of a request whose client did not wait for the end of the answer, as nginx does. */
const clientGone = 499;

/** Neither texts nor keys are noted. */
export function account({ log, metrics }: Service): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const began = performance.now();
    const { outgoing } = c.env;
    let route = "other";
    outgoing.once("close", () => {
      const status = outgoing.writableFinished ? outgoing.statusCode : clientGone;
      const seconds = (performance.now() - began) / 1000;
      metrics.request(route, status, seconds);
      log.info({ method: c.req.method, path: c.req.path.slice(0, 200), status, seconds: Number(seconds.toFixed(3)) });
    });
    await next();
    // What stands before all routes has a * in its path.
    route = matchedRoutes(c).findLast(({ path }) => !path.includes("*"))?.path ?? route;
  };
}
