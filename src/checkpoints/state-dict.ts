/** Finds the tensors in an unpickled object, and says what stands beside them. */
import { Inert } from "./pickle.ts";
import { quote } from "./quote.ts";
import { StridedTensor } from "./torch-pickle.ts";

export interface StateDict {
  readonly tensors: ReadonlyMap<string, StridedTensor>;
  /** Entries of the top level that are no tensors, as plain values. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Names under which something unknown stands, and what to say to one who looks for a tensor there. */
  readonly refused: ReadonlyMap<string, string>;
}

/** Where files keep their state dict when it is not the top level itself. */
const wrappers = ["model", "state_dict"];

/** Objects can share parts, so that few bytes describe endless trees: walks end at these limits. */
const deepest = 32;
const mostVisited = 1_000_000;
const mostDescribed = 10_000;

/** @throws Error if there is no tensor, or if something unknown stands inside of the state dict, with its name */
export function findStateDict(object: unknown): StateDict {
  const top = object instanceof Map ? object : new Map<unknown, unknown>();
  const inner = wrappers.map((key) => ({ key, found: collect(top.get(key)) }));
  const { key: wrapper, found } = inner.find(({ found }) => found.tensors.size > 0) ??
    inner.find(({ found }) => found.inert.size > 0) ?? { key: undefined, found: collect(object) };
  const { tensors, inert } = found;
  const refused = new Map([...inert].map(([name, { name: global }]) => [name, refusal(global)]));
  const [name, reason] = refused.entries().next().value ?? [];
  if (tensors.size === 0) {
    throw new Error(reason ? `holds no tensors; ${reason}` : "holds no tensors; save a model's state_dict()");
  }
  if (wrapper !== undefined && name !== undefined) throw new Error(`${quote(name)} should be a tensor; ${reason}`);

  const beside = [...top].filter(([key, value]) => key !== wrapper && !(value instanceof StridedTensor));
  const budget = { left: mostDescribed };
  const metadata = Object.fromEntries(beside.map(([key, value]) => [keyText(key), describe(value, budget, 0)]));
  return { tensors, metadata, refused };
}

function refusal(global: string): string {
  return `the file puts ${quote(global)} there, which is not run`;
}

interface Found {
  readonly tensors: Map<string, StridedTensor>;
  readonly inert: Map<string, Inert>;
}

/** Tensors and unknown objects below `root`, by the keys that lead to them. */
function collect(root: unknown): Found {
  const found: Found = { tensors: new Map(), inert: new Map() };
  let visited = 0;
  const visit = (value: unknown, name: string, depth: number): void => {
    if (++visited > mostVisited) throw new Error(`holds more than ${mostVisited} values`);
    if (value instanceof StridedTensor) {
      if (found.tensors.has(name)) throw new Error(`holds two tensors named ${quote(name)}`);
      found.tensors.set(name, value);
    } else if (value instanceof Inert) found.inert.set(name, value);
    else if (value instanceof Map || Array.isArray(value)) {
      if (depth === deepest) throw new Error(`nests containers more than ${deepest} deep`);
      for (const [key, item] of value.entries())
        visit(item, name ? `${name}.${keyText(key)}` : keyText(key), depth + 1);
    }
  };
  visit(root, "", 0);
  return found;
}

/** Plain values as they are; tensors and unknown objects as a few words. */
function describe(value: unknown, budget: { left: number }, depth: number): unknown {
  if (--budget.left < 0 || depth === deepest) return "...";
  if (value instanceof StridedTensor) return `tensor ${value.storage.dtype} [${value.layout.shape.join(", ")}]`;
  if (value instanceof Inert) return `not read: ${value.name}`;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof Map) {
    return Object.fromEntries(
      firsts(value, budget.left).map(([key, item]) => [keyText(key), describe(item, budget, depth + 1)]),
    );
  }
  if (Array.isArray(value) || value instanceof Set) {
    return firsts(value, budget.left).map((item) => describe(item, budget, depth + 1));
  }
  return typeof value === "object" && value !== null ? "not read: an object of PyTorch" : value;
}

function firsts<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.length === count) break;
    taken.push(item);
  }
  return taken;
}

function keyText(key: unknown): string {
  return typeof key === "object" && key !== null ? "(an object)" : String(key);
}
