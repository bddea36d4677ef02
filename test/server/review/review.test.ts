/** The review over HTTP, with a real project and real images. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { CurationStore } from "../../../src/curation/store.ts";
import type { DecisionResponse, Pair, PairSummary, ReviewState } from "../../../src/server/review/review.ts";
import { type ReviewServerOptions, startReviewServer } from "../../../src/server/serve.ts";
import { type Reviewed, reviewedProject, sha256 } from "../../helpers/reviewed.ts";
import { post, serve, tinyEngine } from "../../helpers/running-server.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
let count = 0;
let project: Reviewed;
let url = "";

async function start(options: Partial<ReviewServerOptions> = {}): Promise<string> {
  const server = await startReviewServer({ port: 0, store: project.store, ...options });
  onTestFinished(() => server.close(0));
  return `${server.url}/api/review`;
}

beforeEach(() => {
  const texts = ["A cat.", "A dog and a cat.", "A house.", "I apologize for that.", "A red car in a street."];
  project = reviewedProject(join(folder, String(count++)), texts);
});

async function get<T>(path: string): Promise<T> {
  const response = await fetch(url + path);
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as T;
}

const pair = async (id: number) => (await get<{ pair: Pair }>(`/entries/${id}`)).pair;
const current = async (id: number) => (await pair(id)).versions.at(-1)?.id ?? 0;
const names = async (query: string) =>
  (await get<{ entries: PairSummary[] }>(`/entries?${query}`)).entries.map(({ name }) => name);
const turn = async (reviewer: string, query = "") =>
  (await get<{ pair?: Pair }>(`/turn?reviewer=${encodeURIComponent(reviewer)}&${query}`)).pair?.id;
const judge = async (id: number, decision: "keep" | "drop", reviewer = "Ada", version?: number) =>
  post(`${url}/entries/${id}/verdict`, { reviewer, decision, version: version ?? (await current(id)) });
const edit = async (id: number, text: string, reviewer = "Ada", version?: number) =>
  post(`${url}/entries/${id}/text`, { reviewer, text, version: version ?? (await current(id)) });
const undo = (reviewer = "Ada", only?: object) => post(`${url}/undo`, { reviewer, ...(only && { only }) });
const [first, second, third, fourth, fifth] = [1, 2, 3, 4, 5];

function dropByRules(id: number, rule: string): void {
  const version = project.store.entry(id)?.current?.id ?? 0;
  const reasons = [{ rule, message: "I apologize" }];
  project.store.addVerdict({ version, decision: "drop", judge: "rules", author: "rules-1", reasons });
}

describe("without a model", () => {
  beforeEach(async () => {
    url = await start();
  });

  test("filters select pairs, and the progress counts them", async () => {
    dropByRules(fourth, "apology");
    await judge(first, "keep");
    await judge(second, "drop");
    await edit(third, "A small house.");
    await judge(first, "drop", "Ben");
    expect(await names("filter=unreviewed")).toEqual(["3.jpg", "5.jpg"]);
    expect(await names("filter=ruled")).toEqual(["4.jpg"]);
    expect(await names("filter=ruled&rule=apology")).toEqual(["4.jpg"]);
    expect(await names("filter=ruled&rule=other")).toEqual([]);
    expect(await names("filter=edited")).toEqual(["3.jpg"]);
    expect(await names("filter=kept")).toEqual([]);
    expect(await names("filter=dropped")).toEqual(["1.jpg", "2.jpg"]);
    expect(await names("filter=disagreement")).toEqual(["1.jpg"]);
    expect(await names("filter=longest&limit=2")).toEqual(["5.jpg", "4.jpg"]);
    expect(await names("filter=shortest&limit=1&offset=1")).toEqual(["3.jpg"]);
    expect(await names("filter=all")).toHaveLength(5);
    const { progress } = await get<ReviewState>("?reviewer=Ada");
    expect(progress).toMatchObject({ reviewed: 2, all: 4, rules: [{ rule: "apology", count: 1 }] });
    expect(progress.counts).toMatchObject({ unreviewed: 2, ruled: 1, dropped: 2, all: 5 });
    expect(await pair(first)).toMatchObject({ standing: "dropped", agreement: false });
  });

  test("a pair has all versions and verdicts, but not the path of its file", async () => {
    dropByRules(first, "apology");
    await edit(first, "Two cats.");
    await judge(first, "keep");
    const shown = await pair(first);
    expect(shown.versions.map(({ kind, text, author }) => [kind, text, author])).toEqual([
      ["described", "A cat. A cat.", "nano"],
      ["polished", "A cat.", "smollm2"],
      ["edited", "Two cats.", "Ada"],
    ]);
    expect(shown.persons).toMatchObject([{ author: "Ada", decision: "keep" }]);
    expect(JSON.stringify(shown)).not.toContain(folder);
  });

  test("a decision on an old text is rejected with the current one; repeating a decision has no effect", async () => {
    const old = await current(first);
    expect((await edit(first, "One cat.", "Ben", old)).status).toBe(200);
    for (const late of [await judge(first, "keep", "Ada", old), await edit(first, "A grey cat.", "Ada", old)]) {
      expect(late.status).toBe(409);
      const body = (await late.json()) as { error: { code: string; message: string }; current: Pair };
      expect(body.error).toMatchObject({ code: "stale_version", message: expect.stringContaining("by Ben") });
      expect(body.current.versions.at(-1)).toMatchObject({ text: "One cat.", author: "Ben" });
    }
    expect((await edit(first, "One cat.", "Ben", old)).status).toBe(200);
    expect((await pair(first)).versions).toHaveLength(3);
    await judge(first, "keep");
    const version = await current(first);
    await edit(first, "Cats.", "Ben");
    expect((await judge(first, "keep", "Ada", version)).status).toBe(200);
    expect(project.store.verdicts(first)).toHaveLength(1);
  });

  test("undo reverts the reviewer's own actions only", async () => {
    await edit(first, "Two cats.");
    await judge(first, "keep");
    await judge(first, "drop");
    await judge(second, "keep", "Ben");
    const undone = async (reviewer: string) => ((await (await undo(reviewer)).json()) as DecisionResponse).pair;
    expect(await undone("Ada")).toMatchObject({ id: first, standing: "kept" });
    expect(await undone("Ada")).toMatchObject({ id: first, standing: "open", persons: [] });
    expect((await undone("Ada"))?.versions.at(-1)).toMatchObject({ text: "A cat.", kind: "polished" });
    expect(await undone("Ada")).toBeUndefined();
    expect((await pair(first)).versions).toHaveLength(4);
    expect(await pair(second)).toMatchObject({ standing: "kept" });
    expect(await undone("Ben")).toMatchObject({ id: second, standing: "open" });
  });

  test("an edit that another reviewer built on is not undone; a restored text has its former rule verdicts", async () => {
    dropByRules(fourth, "apology");
    await edit(fourth, "A tree.");
    expect(await pair(fourth)).toMatchObject({ standing: "open" });
    await edit(fourth, "A green tree.", "Ben");
    const late = await undo();
    expect(late.status).toBe(409);
    expect(await late.json()).toMatchObject({ current: { id: fourth } });
    await undo("Ben");
    expect((await pair(fourth)).versions.at(-1)?.text).toBe("A tree.");
    await edit(fifth, "A car.", "Cleo");
    expect(await (await undo("Cleo", { image: fifth, kind: "keep" })).json()).not.toHaveProperty("pair");
    await undo("Cleo", { image: fifth, kind: "edit" });
    dropByRules(fifth, "length");
    await edit(fifth, "A blue car.", "Cleo");
    await undo("Cleo");
    expect(await pair(fifth)).toMatchObject({ standing: "dropped", rules: { reasons: [{ rule: "length" }] } });
  });

  test("two reviewers get different pairs, return to skipped ones, and finish", async () => {
    expect(await turn("Ada")).toBe(first);
    expect(await turn("Ben")).toBe(second);
    expect(await turn("Ada", `from=${first}`)).toBe(third);
    expect(await turn("Ben", `from=${second}`)).toBe(fourth);
    expect(await turn("Ada", `from=${fifth}`)).toBe(first);
    expect(await turn("Ada", `from=${third}&backwards=true`)).toBe(first);
    expect(await turn("Ada", `from=${first}&skip=${third},${fifth}`)).toBe(second);
    for (const id of [1, 2, 3, 4]) await judge(id, "keep");
    expect(await turn("Ada", `from=${fifth}`)).toBeUndefined();
    // All are looked at by somebody: better one together than none.
    await pair(fifth);
    expect(await turn("Ada")).toBe(fifth);
    expect(await turn("Ben")).toBe(fifth);
    expect(await turn("Ada", `filter=all&from=${fifth}`)).toBeUndefined();
    expect(await turn("Ben", `filter=longest&from=${fifth}`)).toBe(fourth);
  });

  test("changes by another process are visible immediately", async () => {
    expect(await names("filter=unreviewed")).toHaveLength(5);
    const other = CurationStore.open(project.path);
    onTestFinished(() => other.close());
    const version = other.entry(first)?.current?.id ?? 0;
    other.addVerdict({ version, decision: "keep", judge: "person", author: "Ben" });
    expect(await names("filter=unreviewed")).toHaveLength(4);
    expect(await names("filter=kept")).toEqual(["1.jpg"]);
  });

  test("serves the project's images with caching, and no other files", async () => {
    const response = await fetch(`${url}/images/1`);
    expect(response.headers.get("content-type")).toBe("image/jpeg");
    const bytes = readFileSync(join(folder, String(count - 1), "1.jpg"));
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    const tag = response.headers.get("etag") ?? "";
    expect((await fetch(`${url}/images/1`, { headers: { "if-none-match": tag } })).status).toBe(304);
    for (const path of ["99", "0", "-1", "1.5", "..%2f..%2fetc%2fpasswd", "1%00", "__proto__", "9e99"]) {
      expect((await fetch(`${url}/images/${path}`)).status).toBe(404);
    }
    writeFileSync(join(folder, String(count - 1), "1.jpg"), "secret");
    const changed = await fetch(`${url}/images/1`);
    expect(changed.status).toBe(404);
    expect(await changed.text()).not.toContain("secret");
    rmSync(join(folder, String(count - 1), "2.jpg"));
    const gone = await fetch(`${url}/images/2`);
    expect(gone.status).toBe(404);
    expect(await gone.json()).toMatchObject({ error: { code: "image_gone" } });
  });

  test("converts formats that browsers cannot show; reads ranges of files; rejects what is not an image", async () => {
    const add = (name: string, bytes: Uint8Array, before = 0, after = 0) => {
      const path = join(folder, String(count - 1), name);
      writeFileSync(path, Buffer.concat([Buffer.alloc(before, 7), bytes, Buffer.alloc(after, 9)]));
      const at = before + after > 0 ? { range: { offset: before, length: bytes.length } } : {};
      project.store.addImages([{ name, source: { path, ...at }, sha256: sha256(bytes) }]);
      return project.store.entries().at(-1)?.image.id;
    };
    const blank = sharp({ create: { width: 3000, height: 10, channels: 3, background: "#3060c0" } });
    const tiff = await fetch(`${url}/images/${add("a.tif", await blank.clone().tiff().toBuffer())}`);
    expect(tiff.headers.get("content-type")).toBe("image/webp");
    expect(await sharp(await tiff.arrayBuffer()).metadata()).toMatchObject({ format: "webp", width: 2048 });
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="alert(1)"><script>alert(1)</script></svg>`;
    const drawn = await fetch(`${url}/images/${add("a.svg", Buffer.from(svg))}`);
    expect(drawn.headers.get("content-type")).toBe("image/webp");
    const png = await blank.clone().png().toBuffer();
    const inside = await fetch(`${url}/images/${add("a.tar", png, 512, 100)}`);
    expect(inside.headers.get("content-type")).toBe("image/png");
    expect(Buffer.from(await inside.arrayBuffer()).equals(png)).toBe(true);
    const text = await fetch(`${url}/images/${add("passwd", Buffer.from("root:x:0:0"))}`);
    expect(text.status).toBe(404);
    expect(await text.text()).not.toContain("root");
  });

  test("texts and names are never interpreted", async () => {
    const text = "<script>alert(1)</script> \u202Egnp.exe '; DROP TABLE versions; -- \u{1F600}";
    const reviewer = `"><img src=x onerror=alert(1)> O'Neil 李雷`;
    expect((await edit(first, text, reviewer)).status).toBe(200);
    expect((await judge(first, "keep", reviewer)).status).toBe(200);
    expect(await pair(first)).toMatchObject({ standing: "kept", persons: [{ author: reviewer }] });
    expect((await pair(first)).versions.at(-1)?.text).toBe(text);
    expect((await get<ReviewState>(`?reviewer=${encodeURIComponent(reviewer)}`)).progress.reviewed).toBe(1);
    expect(await turn(reviewer)).toBe(second);
  });

  test("invalid requests are rejected and change nothing", async () => {
    const version = await current(first);
    const elsewhere = await current(second);
    const valid = { reviewer: "Ada", version, decision: "keep", text: "A cat" };
    const wrong: [string, unknown, number][] = [
      ["/entries/1/verdict", "{", 400],
      ["/entries/1/verdict", { ...valid, decision: "withdrawn" }, 400],
      ["/entries/1/verdict", { ...valid, reviewer: "" }, 400],
      ["/entries/1/verdict", { ...valid, reviewer: " ".repeat(9) }, 400],
      ["/entries/1/verdict", { ...valid, reviewer: "a".repeat(81) }, 400],
      ["/entries/1/verdict", { ...valid, version: "1" }, 400],
      ["/entries/1/verdict", { ...valid, version: elsewhere }, 404],
      ["/entries/1/verdict", { ...valid, version: 1e9 }, 404],
      ["/entries/99/verdict", valid, 404],
      ["/entries/1/text", { ...valid, text: "  \n" }, 400],
      ["/entries/1/text", { ...valid, text: "a\0b" }, 400],
      ["/entries/1/text", { ...valid, text: "a".repeat(20_001) }, 400],
      ["/entries/1/text", { ...valid, text: "a".repeat(300_000) }, 413],
      ["/undo", { reviewer: "Ada", only: { image: 1, kind: "all" } }, 400],
    ];
    for (const [path, body, status] of wrong) {
      const response = await post(url + path, body);
      expect([path, response.status]).toEqual([path, status]);
      expect(await response.json()).toHaveProperty("error.message");
    }
    for (const query of ["filter=none", "limit=0", "limit=501", "offset=-1"]) {
      expect((await fetch(`${url}/entries?${query}`)).status).toBe(400);
    }
    expect((await fetch(`${url}/turn`)).status).toBe(400);
    expect((await fetch(`${url}/turn?reviewer=A&skip=1;2`)).status).toBe(400);
    expect((await fetch(`${url}/undo`)).status).toBe(405);
    expect(project.store.verdicts(first)).toEqual([]);
    expect(project.store.versions(first)).toHaveLength(2);
  });

  test("pages of other origins are rejected", async () => {
    const body = { reviewer: "Ada", version: await current(first), decision: "drop" };
    const foreign = await post(`${url}/entries/1/verdict`, body, { origin: "https://example.org" });
    expect(foreign.status).toBe(403);
    expect(project.store.verdicts(first)).toEqual([]);
  });
});

test("API keys are required everywhere except for the page and /health", async () => {
  const key = "ada-0123456789abcdef";
  url = await start({ apiKeys: [key] });
  for (const path of ["", "/entries", "/images/1", "/turn?reviewer=Ada"]) {
    expect((await fetch(url + path)).status).toBe(401);
  }
  expect((await post(`${url}/undo`, { reviewer: "Ada" })).status).toBe(401);
  const headers = { authorization: `Bearer ${key}` };
  expect((await fetch(`${url}/images/1`, { headers })).status).toBe(200);
  expect(await (await fetch(new URL("/health", url))).json()).toEqual({ status: "ok", review: true });
});

test("is served next to a model only if a project is configured", async () => {
  const engine = await tinyEngine();
  const [withReview, without] = [await serve(engine, { review: project.store }), await serve(engine)];
  expect((await fetch(`${withReview.url}/api/review`)).status).toBe(200);
  expect(await (await fetch(`${withReview.url}/health`)).json()).toEqual({ status: "ok", model: "tiny", review: true });
  expect((await fetch(`${without.url}/api/review`)).status).toBe(404);
  expect(await (await fetch(`${without.url}/health`)).json()).toEqual({ status: "ok", model: "tiny" });
});

test("undoing all actions of two reviewers restores every text and status", async () => {
  const step = fc.record({
    who: fc.constantFrom("Ada", "Ben"),
    what: fc.constantFrom("keep", "drop", "edit", "undo"),
    on: fc.constantFrom(0, 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 14 }), (steps) => {
      const { store, ids } = reviewedProject(join(folder, String(count++)), ["a", "b"]);
      const texts = () => store.entries().map(({ current, persons }) => [current?.text, persons.length]);
      const before = texts();
      const undoAll = (who: string) => {
        while (tried(() => store.undo(who)) !== undefined);
      };
      for (const [i, { who, what, on }] of steps.entries()) {
        const image = ids[on] ?? 0;
        const current = store.entry(image)?.current;
        if (!current) throw new Error("no text");
        if (what === "undo") tried(() => store.undo(who));
        else if (what === "edit") {
          store.addVersion({ image, parent: current.id, kind: "edited", text: `${i}`, author: who });
        } else store.addVerdict({ version: current.id, decision: what as "keep", judge: "person", author: who });
        // Nobody goes on with another's edit here: that is what undo refuses.
        if (what === "edit") undoAll(who);
      }
      undoAll("Ada");
      undoAll("Ben");
      expect(texts()).toEqual(before);
    }),
    { numRuns: 25 },
  );
});

/** Undefined if it is refused. */
function tried<T>(task: () => T): T | undefined {
  try {
    return task();
  } catch {
    return undefined;
  }
}
