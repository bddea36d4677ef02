/** The review of a curation project over HTTP: image-text pairs, and the decisions of reviewers. */
import { type Context, Hono } from "hono";
import sharp from "sharp";
import { z } from "zod";
import { type PairStatus, pairStatus, reviewersAgree } from "../../curation/decisions.ts";
import { type Entry, type ProjectImage, StaleVersionError, type Verdict, type Version } from "../../curation/entry.ts";
import { filters, type Progress, type ReviewQueue, select } from "../../curation/review.ts";
import { sha256Hex } from "../../files/digest.ts";
import { readBytes } from "../../files/file.ts";
import { invalidRequest, openAiError } from "../errors.ts";
import { limitBody } from "../guards.ts";

interface BrowserImage {
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** Signatures of the formats that are sent to browsers unchanged. Not SVG, which can contain scripts. */
const browserFormats: readonly (readonly [type: string, offset: number, signature: string])[] = [
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/png", 0, "\x89PNG\r\n\x1a\n"],
  ["image/gif", 0, "GIF87a"],
  ["image/gif", 0, "GIF89a"],
  ["image/webp", 8, "WEBP"],
  ["image/avif", 4, "ftypavif"],
];

/** Longer side of images that are converted for the browser, in pixels. */
const maxSide = 2048;
/** Larger images are not converted. */
const maxPixels = 100_000_000;

/**
 * Loads an image in a format that browsers show; other formats are scaled down and converted to WebP.
 *
 * @throws OpenAiError 404 if its file does not exist, has changed since it was added, or is not an image
 */
async function loadBrowserImage({ name, source, sha256 }: ProjectImage): Promise<BrowserImage> {
  const bytes = await readBytes(source).catch(() => {
    throw openAiError(404, { message: `${name} no longer exists where it was described.`, code: "image_gone" });
  });
  // A project may come from anyone and name any file: only send a file that is the image it was made of.
  if (sha256Hex(bytes) !== sha256) {
    throw openAiError(404, { message: `${name} has changed since it was described.`, code: "image_changed" });
  }
  const start = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  const type = browserFormats.find(([, offset, signature]) => start.startsWith(signature, offset))?.[0];
  if (type !== undefined) return { type, bytes };
  const scaled = await sharp(bytes, { limitInputPixels: maxPixels, autoOrient: true })
    .resize({ width: maxSide, height: maxSide, fit: "inside", withoutEnlargement: true })
    .webp({ quality: 90 })
    .toBuffer()
    .catch(() => {
      throw openAiError(404, { message: `${name} is not a readable image.`, code: "image_unreadable" });
    });
  return { type: "image/webp", bytes: scaled };
}

/** Response of `GET /`. */
export interface ReviewState {
  /** Identifies the project, so that the page never sends the decisions for one project to another. */
  readonly project: string;
  readonly progress: Progress;
}

/** A pair in the response of `GET /entries`. */
export interface PairSummary {
  readonly id: number;
  readonly name: string;
  readonly standing: PairStatus;
  readonly edited: boolean;
  /** Whether all reviewers decided alike; absent with fewer than two reviewers. */
  readonly agreement?: boolean;
}

/** An image and its text with their history, without the path of the image. */
export interface Pair {
  readonly id: number;
  readonly name: string;
  readonly standing: PairStatus;
  readonly agreement?: boolean;
  /** Oldest first; the last is the current one. */
  readonly versions: readonly Version[];
  /** The latest verdict of the rules on the current text. */
  readonly rules?: Verdict;
  readonly persons: readonly Verdict[];
}

/** Response to a decision. */
export interface DecisionResponse {
  /** Undefined if there was nothing to undo. */
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
  .refine((text) => !text.includes("\0"), "must not contain a null character");
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
  /** Comma-separated ids. */
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
    .refine((text) => text.trim() !== "", "must not be empty; drop the pair instead")
    .refine((text) => !text.includes("\0"), "must not contain a null character"),
});
const undoBody = z.object({
  reviewer: name,
  /** Undo only if this was the last action, so that a request sent twice undoes once. */
  only: z.object({ image: version, kind: z.enum(["keep", "drop", "edit"]) }).optional(),
});

/**
 * Routes of the review.
 *
 * | route                       | purpose                                      |
 * | --------------------------- | -------------------------------------------- |
 * | `GET /`                     | progress of the review                       |
 * | `GET /entries`              | list the pairs of a filter                   |
 * | `GET /turn`                 | the next pair for a reviewer                 |
 * | `GET /entries/:id`          | a pair with its history                      |
 * | `GET /images/:id`           | its image                                    |
 * | `POST /entries/:id/verdict` | keep or drop a pair                          |
 * | `POST /entries/:id/text`    | edit its text                                |
 * | `POST /undo`                | undo the reviewer's last action              |
 *
 * A decision on a text that is no longer the current one gets status 409, with the pair as it is now in the field `current`.
 */
export function reviewApi(desk: ReviewQueue): Hono {
  const { store } = desk;
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    if (!c.res.headers.has("cache-control")) c.header("cache-control", "no-store");
  });
  app.use(limitBody(maxBodyBytes));

  app.get("/", (c) => {
    const { reviewer } = parsed(stateQuery, c.req.query());
    return c.json<ReviewState>({ project: projectId(desk), progress: desk.progress(reviewer) });
  });

  app.get("/entries", (c) => {
    const { offset, limit, ...chosen } = parsed(listQuery, c.req.query());
    const found = select(desk.entries(), chosen);
    return c.json({ total: found.length, entries: found.slice(offset, offset + limit).map(summarizePair) });
  });

  app.get("/turn", (c) => {
    const { filter, rule, ...how } = parsed(turnQuery, c.req.query());
    const entry = desk.next({ filter, rule }, how);
    return c.json({ pair: entry && createPair(entry) });
  });

  app.get("/entries/:id", (c) => {
    const { reviewer } = parsed(stateQuery, c.req.query());
    const entry = findEntry(c);
    if (reviewer !== undefined) desk.claim(entry.image.id, reviewer);
    return c.json({ pair: createPair(entry) });
  });

  app.get("/images/:id", async (c) => {
    const { image } = findEntry(c);
    const tag = `"${image.sha256}"`;
    const headers = { etag: tag, "cache-control": "private, no-cache", "x-content-type-options": "nosniff" };
    if (c.req.header("if-none-match") === tag) return c.body(null, 304, headers);
    const { type, bytes } = await loadBrowserImage(image);
    return c.body(new Uint8Array(bytes), 200, { ...headers, "content-type": type });
  });

  app.post("/entries/:id/verdict", async (c) => {
    const { reviewer, version, decision } = parsed(verdictBody, await readJson(c));
    const { image } = checkVersion(findEntry(c), version);
    return applyDecision(c, reviewer, image.id, () => desk.decide(image.id, version, decision, reviewer));
  });

  app.post("/entries/:id/text", async (c) => {
    const { reviewer, version, text } = parsed(textBody, await readJson(c));
    const { image } = checkVersion(findEntry(c), version);
    return applyDecision(c, reviewer, image.id, () => desk.edit(image.id, version, text, reviewer));
  });

  app.post("/undo", async (c) => {
    const { reviewer, only } = parsed(undoBody, await readJson(c));
    try {
      return decisionResponse(c, reviewer, desk.undo(reviewer, only));
    } catch (error) {
      if (!(error instanceof StaleVersionError) || !error.current) throw error;
      return staleResponse(c, error, error.current.image);
    }
  });

  return app;

  function findEntry(c: Context): Entry {
    const imageId = id.safeParse(c.req.param("id"));
    const entry = imageId.success ? store.entry(imageId.data) : undefined;
    if (!entry) throw openAiError(404, { message: "The project has no image with this id.", code: "image_not_found" });
    return entry;
  }

  function checkVersion(entry: Entry, version: number): Entry {
    if (store.versions(entry.image.id).some(({ id }) => id === version)) return entry;
    throw openAiError(404, { message: "The text of this image has no such version.", code: "version_not_found" });
  }

  function applyDecision(c: Context, reviewer: string, image: number, decide: () => void): Response {
    try {
      decide();
    } catch (error) {
      if (error instanceof StaleVersionError) return staleResponse(c, error, image);
      throw error;
    }
    return decisionResponse(c, reviewer, image);
  }

  function decisionResponse(c: Context, reviewer: string, image: number | undefined): Response {
    const entry = image === undefined ? undefined : store.entry(image);
    return c.json<DecisionResponse>({ pair: entry && createPair(entry), progress: desk.progress(reviewer) });
  }

  function staleResponse(c: Context, error: StaleVersionError, image: number): Response {
    const entry = store.entry(image);
    const { body } = openAiError(409, { message: error.message, code: "stale_version" });
    return c.json({ ...body, current: entry && createPair(entry) }, 409);
  }

  function createPair(entry: Entry): Pair {
    const { id } = entry.image;
    return {
      id,
      name: baseName(entry.image.name),
      standing: pairStatus(entry),
      agreement: reviewersAgree(entry),
      versions: store.versions(id),
      rules: entry.rules,
      persons: entry.persons,
    };
  }
}

function summarizePair(entry: Entry): PairSummary {
  return {
    id: entry.image.id,
    name: baseName(entry.image.name),
    standing: pairStatus(entry),
    edited: entry.current?.kind === "edited",
    agreement: reviewersAgree(entry),
  };
}

/** The file name without its folders, which reveal where the image is stored. */
function baseName(name: string): string {
  return name.split(/[/\\]/).at(-1) || name;
}

/** A project is identified by its first image. */
function projectId(desk: ReviewQueue): string {
  const first = desk.entries()[0]?.image.sha256 ?? "";
  return sha256Hex(first).slice(0, 16);
}

async function readJson(c: Context): Promise<unknown> {
  return c.req.json().catch(() => {
    throw openAiError(400, { message: "The body must be JSON." });
  });
}

/** @throws OpenAiError 400 saying what is wrong */
function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (!result.success) throw invalidRequest(result.error);
  return result.data;
}
