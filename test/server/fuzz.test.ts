/** Requests made of the server's own description: each is answered as the description says, and counted. */
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import sharp from "sharp";
import { expect, test } from "vitest";
import { changed, fitting, type Schema } from "../helpers/json-arbitraries.ts";
import { serve, tinyEngine, until } from "../helpers/running-server.ts";

/** MINIGPT4_FUZZ=10000 asks more. */
const requests = Number(process.env.MINIGPT4_FUZZ ?? 1500);
const atOnce = 25;

interface Operation {
  readonly parameters?: readonly { readonly name: string }[];
  readonly requestBody?: { readonly content: { readonly "application/json": { readonly schema: Schema } } };
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>
  >;
}

interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

interface Asked {
  readonly method: string;
  /** As the description names it. */
  readonly route: string;
  readonly path: string;
  readonly body?: string;
  readonly type?: string;
  /** Of the page that asks. */
  readonly origin?: string;
}

const engine = await tinyEngine();
const png = await sharp({ create: { width: 4, height: 4, channels: 3, background: "red" } })
  .png()
  .toBuffer();

test(
  `${requests} requests are answered as /openapi.json says`,
  async () => {
    const server = await serve(engine);
    const description = (await (await fetch(`${server.url}/openapi.json`)).json()) as Description;
    const { paths, components } = description;
    const ajv = new Ajv2020({ strict: false });
    ajv.addSchema({ ...description, $id: "openapi" });
    const fits = (schema: Schema, value: unknown) => {
      const absolute = JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"openapi#/'));
      return ajv.validate(absolute, value) || ajv.errorsText();
    };

    const url = fc.oneof(
      { weight: 6, arbitrary: fc.constant(`data:image/png;base64,${png.toString("base64")}`) },
      fc.constantFrom(
        "http://127.0.0.1/",
        "file:///etc/passwd",
        "data:image/png,x",
        "data:image/png;base64,iVBORw0KGgo=",
      ),
      fc.string().map((text) => `data:image/png;base64,${text}`),
    );
    const model = fc.oneof({ weight: 9, arbitrary: fc.constant("tiny") }, fc.string());
    const few = fc.integer({ min: 1, max: 3 });
    const options = {
      schemas: components.schemas,
      properties: { model, url, n: few, num_beams: few, max_tokens: few },
    };
    // What no schema says: a conversation ends with what somebody asks.
    const before = fc.array(fitting({ $ref: "#/components/schemas/Message" }, options), { maxLength: 3 });
    const asked = fitting({ $ref: "#/components/schemas/Message" }, options).map((message) => ({
      ...Object(message),
      role: "user",
    }));
    const question = fc.constant({ role: "user", content: "What is this?" });
    const messages = fc.tuple(before, fc.oneof(question, asked)).map(([before, last]) => [...before, last]);
    const withMessages = { ...options, properties: { ...options.properties, messages, max_completion_tokens: few } };
    const operations = Object.entries(paths).flatMap(([route, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        weight: operation.requestBody ? 5 : 1,
        arbitrary: requestsOf(method, route, operation, withMessages),
      })),
    );
    const tallies = new Map<string, number>();

    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(...operations), { minLength: atOnce, maxLength: atOnce }), async (several) => {
        await Promise.all(several.map(ask));
      }),
      { numRuns: Math.ceil(requests / atOnce) },
    );

    async function ask({ method, route, path, body, type, origin }: Asked): Promise<void> {
      const response = await fetch(server.url + path, {
        method,
        body,
        headers: { ...(type !== undefined && { "content-type": type }), ...(origin !== undefined && { origin }) },
      });
      const { status, headers } = response;
      const text = await response.text();
      const tally = `${route.replace(/\{(\w+)\}/, ":$1")} ${status}`;
      tallies.set(tally, (tallies.get(tally) ?? 0) + 1);
      const told = `${method} ${path} ${type} ${body}\n-> ${status} ${text}`;
      const operation = paths[route]?.[method.toLowerCase()];
      const described = operation?.responses[status];
      expect(described, `is not described: ${told}`).toBeDefined();
      expect(status, told).not.toBe(500);
      const given = headers.get("content-type")?.split(";")[0] ?? "";
      const schema = described?.content?.[given]?.schema;
      if (!schema) throw new Error(`The description has no ${given}: ${told}`);
      if (given === "text/event-stream") {
        const events = text.split("\n\n").filter((event) => event !== "");
        expect(events.at(-1), told).toBe("data: [DONE]");
        for (const event of events.slice(0, -1)) expect(fits(schema, JSON.parse(event.slice(6))), told).toBe(true);
      } else {
        expect(fits(schema, JSON.parse(text)), told).toBe(true);
      }
    }

    const count = [...tallies.values()].reduce((sum, count) => sum + count, 0);
    expect(count).toBeGreaterThanOrEqual(requests);
    // The requests have reached the model, and been refused before it.
    for (const answered of ["/v1/chat/completions 200", "/v1/chat/completions 400"]) {
      expect(tallies.get(answered), answered).toBeGreaterThan(count / 20);
    }
    expect(tallies.get("/v1/chat/completions 403"), "a page of another origin").toBeGreaterThan(0);
    // One more: the description.
    const counted = new Map(tallies).set("/openapi.json 200", 1);
    await until(async () => sameCounts(await countsOf(server.url), counted));
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(text).toMatch(/^minigpt4_questions_running 0$/m);
    expect(text).toMatch(/^minigpt4_questions_waiting 0$/m);
    if (process.env.MINIGPT4_FUZZ !== undefined) console.log(Object.fromEntries(tallies));
  },
  60_000 + requests * 60,
);

/** Requests to an operation: ones that fit, ones that almost do, and ones of which the text is damaged. */
function requestsOf(
  method: string,
  route: string,
  operation: Operation,
  options: Parameters<typeof fitting>[1],
): fc.Arbitrary<Asked> {
  const name = fc.oneof(
    fc.constant("tiny"),
    fc.string({ minLength: 1, unit: "grapheme" }).filter((text) => !/^\.{1,2}$/.test(text)),
  );
  const path = name.map((name) => route.replace(/\{\w+\}/, encodeURIComponent(name)));
  const origin = fc.oneof({ weight: 30, arbitrary: fc.constant(undefined) }, fc.constant("https://example.com"));
  const asked = { method: fc.constant(method.toUpperCase()), route: fc.constant(route), path, origin };
  const schema = operation.requestBody?.content["application/json"].schema;
  if (!schema) return fc.record(asked);
  const whole = fitting(schema, options);
  const body = fc.oneof(
    { weight: 4, arbitrary: whole.map(quick) },
    { weight: 4, arbitrary: changed(whole).map(quick) },
    {
      weight: 1,
      arbitrary: fc.tuple(whole.map(quick), fc.nat()).map(([text, at]) => text.slice(0, at % (text.length + 1))),
    },
    { weight: 1, arbitrary: fc.json() },
  );
  const type = fc.oneof(
    { weight: 20, arbitrary: fc.constant("application/json") },
    fc.constantFrom("application/json; charset=utf-8", "text/plain", "application/octet-stream", "multipart/form-data"),
  );
  return fc.record({ ...asked, body, type });
}

/** As JSON; what would be answered at length is asked to be short. */
function quick(value: unknown): string {
  if (typeof value !== "object" || value === null || !("messages" in value)) return JSON.stringify(value) ?? "";
  const short = (limit: unknown) =>
    typeof limit === "number" && Number.isInteger(limit) && limit > 2 && limit < 10_000 ? 2 : limit;
  const { max_tokens, max_completion_tokens, ...rest }: Record<string, unknown> = { ...value };
  return JSON.stringify({
    ...rest,
    max_tokens: short(max_tokens) ?? 2,
    max_completion_tokens: short(max_completion_tokens),
  });
}

/** How many requests to a route the server has answered with a status, those for its metrics left out. */
async function countsOf(url: string): Promise<Map<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const counts = new Map<string, number>();
  const lines = /^minigpt4_http_requests_total\{route="([^"]*)",status="(\d+)"\} (\d+)$/gm;
  for (const [, route, status, count] of text.matchAll(lines)) {
    if (route !== "/metrics") counts.set(`${route} ${status}`, Number(count));
  }
  return counts;
}

function sameCounts(one: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): boolean {
  return one.size === other.size && [...one].every(([asked, count]) => other.get(asked) === count);
}
