/** Values that fit a JSON Schema, and values that almost do. */
import fc from "fast-check";

/** What is used here of JSON Schema, as OpenAPI 3.1 has it. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}

export interface SchemaOptions {
  /** What `$ref`s name. */
  readonly schemas: Readonly<Record<string, Schema>>;
  /** Values of properties that mean more than their schema says. */
  readonly properties?: Readonly<Record<string, fc.Arbitrary<unknown>>>;
}

/** Any characters, halves of pairs too. */
const text = fc.string({ unit: "binary" }).map((text) => text.replace("\udc00", "\ud800"));

/** Any value that fits. */
export function fitting(schema: Schema, options: SchemaOptions): fc.Arbitrary<unknown> {
  const inner = (part: Schema) => fitting(part, options);
  if (schema.$ref !== undefined) {
    const known = options.schemas[schema.$ref.replace("#/components/schemas/", "")];
    if (!known) throw new Error(`There is no schema ${schema.$ref}`);
    return inner(known);
  }
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches) return fc.oneof(...branches.map(inner));
  if (Array.isArray(schema.type)) return fc.oneof(...schema.type.map((type) => inner({ ...schema, type })));
  const { minimum: min = -1e9, maximum: max = 1e9, minItems = 0, maxItems = 5, minLength = 0, maxLength = 20 } = schema;
  switch (schema.type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer":
      return fc.integer({ min, max });
    case "number":
      return fc.double({ min, max, noNaN: true });
    case "string":
      return text.map((text) => text.slice(0, maxLength).padEnd(minLength, "x"));
    case "array":
      return fc.array(inner(schema.items ?? {}), { minLength: minItems, maxLength: Math.min(maxItems, minItems + 3) });
    case "object": {
      const properties: Record<string, fc.Arbitrary<unknown>> = {};
      for (const [name, part] of Object.entries(schema.properties ?? {})) {
        properties[name] = options.properties?.[name] ?? inner(part);
      }
      return fc.record(properties, { requiredKeys: [...(schema.required ?? [])] });
    }
    default:
      return fc.jsonValue();
  }
}

const strange = fc.oneof(
  fc.jsonValue(),
  text,
  fc.constantFrom(null, "", [], {}, 0, -1, 1e308, 2 ** 53, Number.MIN_VALUE, "\ud800", "__proto__", "a".repeat(5000)),
);

/** A value with one to three changes somewhere in it: another value, something left out, doubled, wrapped or added. */
export function changed(value: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const change = fc.record({
    way: fc.array(fc.nat(), { maxLength: 6 }),
    how: fc.constantFrom("replace", "remove", "double", "wrap", "add"),
    by: strange,
    name: fc.oneof(fc.string(), fc.constantFrom("__proto__", "constructor", "length", "tools", "n", "logprobs")),
  });
  return fc
    .tuple(value, fc.array(change, { minLength: 1, maxLength: 3 }))
    .map(([value, changes]) => changes.reduce<unknown>((before, { way, ...how }) => at(before, way, how), value));
}

interface Change {
  readonly how: string;
  readonly by: unknown;
  readonly name: string;
}

/** The value, changed at the end of the way: each number says which part is gone into. */
function at(value: unknown, [turn, ...way]: readonly number[], change: Change): unknown {
  const keys = typeof value === "object" && value !== null ? Object.keys(value) : [];
  const key = turn === undefined ? undefined : keys[turn % Math.max(keys.length, 1)];
  if (typeof value !== "object" || value === null || key === undefined) return changeValue(value, change);
  if (Array.isArray(value)) {
    const i = Number(key);
    const part = at(value[i], way, change);
    if (change.how === "remove" && way.length === 0) return value.toSpliced(i, 1);
    return value.toSpliced(i, 1, ...(change.how === "double" ? [part, part] : [part]));
  }
  const entries = Object.entries(value);
  if (change.how === "remove" && way.length === 0) return Object.fromEntries(entries.filter(([name]) => name !== key));
  return Object.fromEntries(entries.map(([name, part]) => [name, name === key ? at(part, way, change) : part]));
}

function changeValue(value: unknown, { how, by, name }: Change): unknown {
  if (how === "wrap") return [value];
  if (how === "add" && typeof value === "object" && value !== null) {
    return Array.isArray(value) ? [...value, by] : Object.fromEntries([...Object.entries(value), [name, by]]);
  }
  if (how === "double" && typeof value === "string") return value + value;
  return by;
}
