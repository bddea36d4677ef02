/** The review of a curation project alone, without a model. */
import { Hono } from "hono";
import { type Logger, pino } from "pino";
import { ReviewDesk } from "../../curation/review-desk.ts";
import type { CurationStore } from "../../curation/store.ts";
import { addEndings, addGuards, type GuardOptions } from "../frame.ts";
import { addPage } from "../page.ts";
import type { ServerEnv } from "../service.ts";
import { reviewApi } from "./review.ts";

export interface ReviewAppOptions extends GuardOptions {
  /** Folder of the built page. */
  readonly pageFolder?: string;
  readonly log?: Logger;
}

export function createReviewApp(store: CurationStore, options: ReviewAppOptions = {}): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  addGuards(app, options);
  // The page shows no chat where there is no model.
  app.get("/health", (c) => c.json({ status: "ok", review: true }));
  app.route("/api/review", reviewApi(new ReviewDesk(store)));
  if (options.pageFolder !== undefined) addPage(app, options.pageFolder);
  addEndings(app, options.log ?? pino({ level: "silent" }));
  return app;
}
