/** The review of a curation project over HTTP: pairs of image and text, and what persons decide of them. */
import { type Context, Hono } from "hono";
import sharp from "sharp";
import { z } from "zod";
import { agreementOf, type Standing, standingOf } from "../../curation/decisions.ts";
import { type Entry, type ProjectImage, StaleVersionError, type Verdict, type Version } from "../../curation/entry.ts";
import { filters, type Progress, type ReviewDesk, select } from "../../curation/review.ts";
import { sha256Hex } from "../../files/digest.ts";
import { readBytes } from "../../files/file.ts";
import { invalidRequest, openAiError } from "../errors.ts";
import { limitBody } from "../guards.ts";

// A project's image as a browser can show it.

interface ShownImage {
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** What browsers show by themselves, by what it begins with. SVG is none of them: it is a program more than an image. */
const kinds: readonly (readonly [type: string, at: number, begin: string])[] = [
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/png", 0, "\x89PNG\r\n\x1a\n"],
  ["image/gif", 0, "GIF87a"],
  ["image/gif", 0, "GIF89a"],
  ["image/webp", 8, "WEBP"],
  ["image/avif", 4, "ftypavif"],
];

/** Pixels of the longer side of what is decoded for a browser, and those that are decoded at most. */
const longestSide = 2048;
const maxPixels = 100_000_000;

/**
 * The bytes as they are where a browser can show them; others are decoded, scaled down and encoded anew.
 *
 * @throws OpenAiError 404 if its file is gone, holds something else than when it was added, or is no image
 */
async function shownImage({ name, source, sha256 }: ProjectImage): Promise<ShownImage> {
  const bytes = await readBytes(source).catch(() => {
    throw openAiError(404, { message: `${name} is not where it was when it was described`, code: "image_gone" });
  });
  // A project may come from anywhere: what it names is only given out if it is the image that it holds.
  if (sha256Hex(bytes) !== sha256) {
    throw openAiError(404, { message: `${name} is no longer the image that was described`, code: "image_changed" });
  }
  const begin = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  const type = kinds.find(([, at, text]) => begin.startsWith(text, at))?.[0];
  if (type !== undefined) return { type, bytes };
  const scaled = await sharp(bytes, { limitInputPixels: maxPixels, autoOrient: true })
    .resize({ width: longestSide, height: longestSide, fit: "inside", withoutEnlargement: true })
    .webp({ quality: 90 })
    .toBuffer()
    .catch(() => {
      throw openAiError(404, { message: `${name} is not an image that can be read`, code: "image_unreadable" });
    });
  return { type: "image/webp", bytes: scaled };
}

/** The answer to `GET /`. */
export interface ReviewState {
  /** Tells one project from another; decisions for one are never sent to another. */
  readonly project: string;
  readonly progress: Progress;
}

/** A pair in the answer to `GET /entries`. */
export interface PairSummary {
  readonly id: number;
  readonly name: string;
  readonly standing: Standing;
  readonly edited: boolean;
  /** Whether all persons decided alike; absent if fewer than two did. */
  readonly agreement?: boolean;
}

/** All that is known of an image and its text, but for where the image's file is. */
export interface Pair {
  readonly id: number;
  readonly name: string;
  readonly standing: Standing;
  readonly agreement?: boolean;
  /** Oldest first; the last is the current one. */
  readonly versions: readonly Version[];
  /** The last word of the rules on the current text. */
  readonly rules?: Verdict;
  readonly persons: readonly Verdict[];
}

/** The answer to what was decided. */
export interface DecisionResponse {
  /** Undefined where there was nothing to undo. */
  readonly pair?: Pair;
  readonly progress: Progress;
}

const maxBodyBytes = 256 * 1024;
const maxPage = 500;

const name = z
  .string()
  .trim()
  .min(1)
  .max(80)
  .refine((text) => !text.includes("\0"), "has a null character");
const id = z.coerce.number().int().positive().max(Number.MAX_SAFE_INTEGER);
const version = z.int().positive();
const selection = { filter: z.enum(filters).default("unreviewed"), rule: z.string().max(200).optional() };

const stateQuery = z.object({ reviewer: name.optional() });
const listQuery = z.object({
  ...selection,
  offset: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(maxPage).default(100),
});
const turnQuery = z.object({
  ...selection,
  reviewer: name,
  from: id.optional(),
  backwards: z.stringbool().default(false),
  /** Ids with commas between them. */
  skip: z
    .string()
    .regex(/^(\d{1,15}(,\d{1,15})*)?$/)
    .max(2000)
    .default("")
    .transform((text) => new Set(text.split(",").map(Number))),
});
const verdictBody = z.object({ reviewer: name, version, decision: z.enum(["keep", "drop"]) });
const textBody = z.object({
  reviewer: name,
  version,
  text: z
    .string()
    .max(20_000)
    .refine((text) => text.trim() !== "", "is empty; drop the pair instead")
    .refine((text) => !text.includes("\0"), "has a null character"),
});
const undoBody = z.object({
  reviewer: name,
  /** Only if this is what was done last, so that a request that is sent twice undoes once. */
  only: z.object({ image: version, kind: z.enum(["keep", "drop", "edit"]) }).optional(),
});

/**
 * `GET /` says how far the review is, `GET /entries` lists the pairs of a filter, `GET /turn` gives a reviewer the next one,
 * `GET /entries/:id` one with its history, and `GET /images/:id` its image. `POST /entries/:id/verdict` keeps or drops,
 * `POST /entries/:id/text` edits, `POST /undo` takes the reviewer's last action back. Who decides on a text that is no longer the
 * current one gets status 409, and the pair as it is now in the field `current`.
 */
export function reviewApi(desk: ReviewDesk): Hono {
  const { store } = desk;
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    if (!c.res.headers.has("cache-control")) c.header("cache-control", "no-store");
  });
  app.use(limitBody(maxBodyBytes));

  app.get("/", (c) => {
    const { reviewer } = parsed(stateQuery, c.req.query());
    return c.json<ReviewState>({ project: projectOf(desk), progress: desk.progress(reviewer) });
  });

  app.get("/entries", (c) => {
    const { offset, limit, ...chosen } = parsed(listQuery, c.req.query());
    const found = select(desk.entries(), chosen);
    return c.json({ total: found.length, entries: found.slice(offset, offset + limit).map(listed) });
  });

  app.get("/turn", (c) => {
    const { filter, rule, ...how } = parsed(turnQuery, c.req.query());
    const entry = desk.turn({ filter, rule }, how);
    return c.json({ pair: entry && pairOf(entry) });
  });

  app.get("/entries/:id", (c) => {
    const { reviewer } = parsed(stateQuery, c.req.query());
    const entry = found(c);
    if (reviewer !== undefined) desk.claim(entry.image.id, reviewer);
    return c.json({ pair: pairOf(entry) });
  });

  app.get("/images/:id", async (c) => {
    const { image } = found(c);
    const tag = `"${image.sha256}"`;
    const headers = { etag: tag, "cache-control": "private, no-cache", "x-content-type-options": "nosniff" };
    if (c.req.header("if-none-match") === tag) return c.body(null, 304, headers);
    const { type, bytes } = await shownImage(image);
    return c.body(new Uint8Array(bytes), 200, { ...headers, "content-type": type });
  });

  app.post("/entries/:id/verdict", async (c) => {
    const { reviewer, version, decision } = parsed(verdictBody, await jsonOf(c));
    const { image } = ofImage(found(c), version);
    return decided(c, image, reviewer, () => desk.judge(image.id, version, decision, reviewer));
  });

  app.post("/entries/:id/text", async (c) => {
    const { reviewer, version, text } = parsed(textBody, await jsonOf(c));
    const { image } = ofImage(found(c), version);
    return decided(c, image, reviewer, () => desk.edit(image.id, version, text, reviewer));
  });

  app.post("/undo", async (c) => {
    const { reviewer, only } = parsed(undoBody, await jsonOf(c));
    try {
      const image = desk.undo(reviewer, only);
      const entry = image === undefined ? undefined : store.entry(image);
      return c.json<DecisionResponse>({ ...(entry && { pair: pairOf(entry) }), progress: desk.progress(reviewer) });
    } catch (error) {
      if (!(error instanceof StaleVersionError) || !error.current) throw error;
      return stale(c, error, error.current.image);
    }
  });

  return app;

  function found(c: Context): Entry {
    const asked = id.safeParse(c.req.param("id"));
    const entry = asked.success ? store.entry(asked.data) : undefined;
    if (!entry) throw openAiError(404, { message: "The project has no such image", code: "image_not_found" });
    return entry;
  }

  function ofImage(entry: Entry, version: number): Entry {
    if (store.versions(entry.image.id).some((one) => one.id === version)) return entry;
    throw openAiError(404, { message: "The image has no such version of its text", code: "version_not_found" });
  }

  function decided(c: Context, { id }: ProjectImage, reviewer: string, decide: () => void): Response {
    try {
      decide();
    } catch (error) {
      if (error instanceof StaleVersionError) return stale(c, error, id);
      throw error;
    }
    const entry = store.entry(id);
    return c.json<DecisionResponse>({ ...(entry && { pair: pairOf(entry) }), progress: desk.progress(reviewer) });
  }

  function stale(c: Context, error: StaleVersionError, image: number): Response {
    const entry = store.entry(image);
    const { body } = openAiError(409, { message: error.message, code: "stale_version" });
    return c.json({ ...body, current: entry && pairOf(entry) }, 409);
  }

  function pairOf(entry: Entry): Pair {
    const { id } = entry.image;
    const agreement = agreementOf(entry);
    return {
      id,
      name: shortName(entry.image.name),
      standing: standingOf(entry),
      ...(agreement !== undefined && { agreement }),
      versions: store.versions(id),
      ...(entry.rules && { rules: entry.rules }),
      persons: entry.persons,
    };
  }
}

function listed(entry: Entry): PairSummary {
  const agreement = agreementOf(entry);
  return {
    id: entry.image.id,
    name: shortName(entry.image.name),
    standing: standingOf(entry),
    edited: entry.current?.kind === "edited",
    ...(agreement !== undefined && { agreement }),
  };
}

/** Without the folders, which say where an image's file is, and are the same for most. */
function shortName(name: string): string {
  return name.split(/[/\\]/).at(-1) || name;
}

/** A project is known by its first image. */
function projectOf(desk: ReviewDesk): string {
  const first = desk.entries()[0]?.image.sha256 ?? "";
  return sha256Hex(first).slice(0, 16);
}

async function jsonOf(c: Context): Promise<unknown> {
  return c.req.json().catch(() => {
    throw openAiError(400, { message: "The body should be JSON" });
  });
}

/** @throws OpenAiError 400 that says what is wrong */
function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (!result.success) throw invalidRequest(result.error);
  return result.data;
}
