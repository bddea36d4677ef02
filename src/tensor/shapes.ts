/**
 * Dimensions of values in a graph: a number, or a polynomial of named sizes that are bound when the graph runs.
 *
 * Polynomials are stored as text in a canonical form ("2*batch*sequence+1"), so dimensions are equal exactly when their texts are
 * equal. Networks need no more algebra than this: concatenation adds sizes, merging axes multiplies them.
 */

/** A size: a number, or a polynomial of named sizes in canonical form. */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** Coefficient of each product of names; the empty product is the constant. */
type Polynomial = Map<string, number>;

function parse(dim: Dim): Polynomial {
  if (typeof dim === "number") return new Map([["", dim]]);
  const terms: Polynomial = new Map();
  for (const term of dim.split("+")) {
    let coefficient = 1;
    const names: string[] = [];
    for (const factor of term.split("*")) {
      if (/^-?\d+$/.test(factor)) coefficient *= Number(factor);
      else names.push(factor);
    }
    const key = names.sort().join("*");
    terms.set(key, (terms.get(key) ?? 0) + coefficient);
  }
  return terms;
}

function format(terms: Polynomial): Dim {
  const parts = [...terms].filter(([, coefficient]) => coefficient !== 0).sort(([a], [b]) => (a < b ? 1 : -1));
  if (parts.length === 0) return 0;
  const [only] = parts;
  if (parts.length === 1 && only && only[0] === "") return only[1];
  return parts
    .map(([names, coefficient]) =>
      names === "" ? `${coefficient}` : coefficient === 1 ? names : `${coefficient}*${names}`,
    )
    .join("+");
}

/** a + b. */
export function addDims(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a + b;
  const sum = parse(a);
  for (const [names, coefficient] of parse(b)) sum.set(names, (sum.get(names) ?? 0) + coefficient);
  return format(sum);
}

/** a * b. */
export function mulDims(a: Dim, b: Dim): Dim {
  // 0 * -1 is -0.
  if (typeof a === "number" && typeof b === "number") return a * b || 0;
  const product: Polynomial = new Map();
  for (const [left, x] of parse(a)) {
    for (const [right, y] of parse(b)) {
      const key = [...left.split("*"), ...right.split("*")].filter(Boolean).sort().join("*");
      product.set(key, (product.get(key) ?? 0) + x * y);
    }
  }
  return format(product);
}

/** a - b. */
export function subDims(a: Dim, b: Dim): Dim {
  return addDims(a, mulDims(b, -1));
}

/** The product of all dimensions. */
export function productOf(shape: Shape): Dim {
  return shape.reduce<Dim>(mulDims, 1);
}

/** Splits a dimension into the terms of its sum, each a coefficient and the names that it multiplies. */
export function termsOf(dim: Dim): { coefficient: number; names: string[] }[] {
  return [...parse(dim)].map(([names, coefficient]) => ({ coefficient, names: names === "" ? [] : names.split("*") }));
}

/** Whether `name` is a valid name of a size: letters, digits and "_", not starting with a digit. */
export function isDimName(name: string): boolean {
  return /^[A-Za-z_]\w*$/.test(name);
}

/** Evaluates a dimension for given sizes of its names. @throws Error if the size of a name is missing */
export function evaluateDim(dim: Dim, sizes: ReadonlyMap<string, number>): number {
  if (typeof dim === "number") return dim;
  let sum = 0;
  for (const { coefficient, names } of termsOf(dim)) {
    let term = coefficient;
    for (const name of names) {
      const size = sizes.get(name);
      if (size === undefined) throw new Error(`The size "${name}" is not bound by any input`);
      term *= size;
    }
    sum += term;
  }
  return sum;
}

/** Formats a shape for messages: "[batch, 32, 768]". */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Whether two shapes are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** The shape of an elementwise result (NumPy's rule), or undefined if the shapes do not broadcast. */
export function broadcastShapes(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) return undefined;
    out.push(x === 1 ? y : x);
  }
  return out;
}
