import { expect, test } from "vitest";
import { createApp } from "../../src/server/app.ts";
import { serve, tinyEngine } from "../helpers/running-server.ts";

const engine = await tinyEngine();

interface Operation {
  readonly summary?: string;
  readonly responses: Readonly<Record<string, { readonly description: string }>>;
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: unknown }>> };
}

test("/openapi.json is a complete OpenAPI 3.1 document with all routes", async () => {
  const { url } = await serve(engine, { apiKeys: ["0123456789abcdef"] });
  const document = (await (await fetch(`${url}/openapi.json`)).json()) as {
    openapi: string;
    info: { title: string; version: string };
    paths: Record<string, Record<string, Operation>>;
    components: { schemas: Record<string, unknown>; securitySchemes: object };
  };
  expect(document.openapi).toBe("3.1.0");
  expect(document.info).toEqual({ title: "minigpt4: tiny", version: "1.0.0" });
  expect(document.components.securitySchemes).toEqual({ apiKey: { type: "http", scheme: "bearer" } });
  const told = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ":$1")}`),
  );
  const routes = createApp(engine)
    .routes.filter(({ method, path }) => method !== "ALL" && !["/openapi.json", "/metrics"].includes(path))
    .map(({ method, path }) => `${method} ${path}`);
  expect(new Set(told)).toEqual(new Set(routes));
  for (const operation of Object.values(document.paths).flatMap((path) => Object.values(path))) {
    expect(operation.summary).toBeTruthy();
    for (const { description } of Object.values(operation.responses)) expect(description).toBeTruthy();
  }
  const references = JSON.stringify(document).match(/"\$ref":"[^"]+"/g) ?? [];
  expect(references.length).toBeGreaterThan(5);
  for (const reference of references) {
    const name = /#\/components\/schemas\/(\w+)/.exec(reference)?.[1] ?? "";
    expect(document.components.schemas).toHaveProperty(name);
  }
  // What 3.0 had and 3.1 has not.
  expect(JSON.stringify(document)).not.toContain('"nullable"');
});
