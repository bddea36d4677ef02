/**
 * Reads Python's pickle format (protocols 0 to 5) without executing code: global names are looked up in a table of the caller,
 * and others become `Inert` objects, which can be called and stored like any other but do nothing (opcodes: `pickletools`
 * of CPython).
 */
import type { Window } from "../header.ts";

/** Stands for an unknown class or function, or for the result of calling it. */
export class Inert {
  /** `module.name` */
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/** A known global. It reports work that grows with its arguments to `spend`. */
export class Callable {
  readonly call: (args: readonly unknown[], spend: (steps: number) => void) => unknown;

  constructor(call: Callable["call"]) {
    this.call = call;
  }
}

/** Meaning of global names and persistent ids. */
export interface Environment {
  /** Known globals by `module.name`. */
  readonly globals: ReadonlyMap<string, unknown>;
  persistent(id: unknown): unknown;
}

/** Limit for operations, far more than any real checkpoint needs. */
const maxSteps = 4_000_000;
/** Limit for containers: an empty dictionary takes one byte in the file and about 200 in memory. */
const maxContainers = 1_000_000;
const maxIntegerBytes = 256;

/**
 * Reads one pickle; the window is then after it. Dictionaries become `Map`, lists and tuples arrays, bytes `Uint8Array`, and
 * integers that are not safe bigint.
 *
 * @throws Error naming the byte at which it is malformed, or the limit that it exceeds
 */
export function unpickle(window: Window, environment: Environment): unknown {
  const machine = new Machine(window, environment);
  for (;;) {
    const at = window.position;
    const code = window.uint8();
    if (code === stop) return machine.pop();
    const operation = operations.get(code);
    if (!operation) throw new Error(`pickle: unknown opcode 0x${code.toString(16)} at byte ${at}`);
    machine.spend(1);
    operation(machine, window);
  }
}

class Machine {
  private readonly window: Window;
  private readonly environment: Environment;
  private readonly stack: unknown[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, unknown>();
  private steps = 0;
  private containers = 0;

  constructor(window: Window, environment: Environment) {
    this.window = window;
    this.environment = environment;
  }

  spend(steps: number): void {
    this.steps += steps;
    if (this.steps > maxSteps) this.fail(`takes more than ${maxSteps} steps`);
  }

  fail(what: string): never {
    throw new Error(`pickle: ${what}, at byte ${this.window.position}`);
  }

  push(value: unknown): void {
    this.stack.push(value);
  }

  /** Pushes a new list, dictionary or set. */
  pushContainer(container: unknown): void {
    if (++this.containers > maxContainers) this.fail(`holds more than ${maxContainers} containers`);
    this.stack.push(container);
  }

  pop(): unknown {
    if (this.stack.length <= (this.marks.at(-1) ?? 0)) this.fail("takes a value from an empty stack");
    return this.stack.pop();
  }

  top(): unknown {
    const value = this.pop();
    this.stack.push(value);
    return value;
  }

  mark(): void {
    this.marks.push(this.stack.length);
  }

  popToMark(): unknown[] {
    const mark = this.marks.pop();
    if (mark === undefined) return this.fail("has no mark to go back to");
    return this.stack.splice(mark);
  }

  store(index: number): void {
    this.memo.set(index, this.top());
  }

  memoize(): void {
    this.store(this.memo.size);
  }

  recall(index: number): void {
    if (!this.memo.has(index)) this.fail(`recalls value ${index}, which it never stored`);
    this.stack.push(this.memo.get(index));
  }

  global(module: unknown, name: unknown): unknown {
    if (typeof module !== "string" || typeof name !== "string") return this.fail("names a global that is no text");
    const full = `${module}.${name}`;
    return this.environment.globals.get(full) ?? new Inert(full);
  }

  persistent(id: unknown): void {
    this.stack.push(this.environment.persistent(id));
  }

  call(callee: unknown, args: unknown): void {
    if (callee instanceof Inert) this.pushContainer(new Inert(callee.name));
    else if (callee instanceof Callable && Array.isArray(args)) {
      this.pushContainer(callee.call(args, (steps) => this.spend(steps)));
    } else this.fail("calls what is no function");
  }

  /** Adds to a list or set; to something unknown, nothing happens. */
  append(items: readonly unknown[]): void {
    const container = this.top();
    if (Array.isArray(container)) for (const item of items) container.push(item);
    else if (container instanceof Set) for (const item of items) container.add(item);
    else if (!(container instanceof Inert)) this.fail("appends to what is no list");
  }

  setItems(pairs: readonly unknown[]): void {
    const container = this.top();
    if (container instanceof Map) addPairs(container, pairs);
    else if (!(container instanceof Inert)) this.fail("sets an item of what is no dictionary");
  }
}

/** Keys and values by turns. */
function addPairs(dictionary: Map<unknown, unknown>, pairs: readonly unknown[]): Map<unknown, unknown> {
  for (let i = 0; i + 1 < pairs.length; i += 2) dictionary.set(pairs[i], pairs[i + 1]);
  return dictionary;
}

type Operation = (machine: Machine, window: Window) => void;

const stop = 0x2e;

const operations: ReadonlyMap<number, Operation> = new Map<number, Operation>([
  // The stack and the memo.
  [letter("("), (m) => m.mark()],
  [letter("0"), (m) => m.pop()],
  [letter("1"), (m) => m.popToMark()],
  [letter("2"), (m) => m.push(m.top())],
  [letter("p"), (m, w) => m.store(decimal(m, w))],
  [letter("q"), (m, w) => m.store(w.uint8())],
  [letter("r"), (m, w) => m.store(w.uint32())],
  [0x94, (m) => m.memoize()],
  [letter("g"), (m, w) => m.recall(decimal(m, w))],
  [letter("h"), (m, w) => m.recall(w.uint8())],
  [letter("j"), (m, w) => m.recall(w.uint32())],
  // Framing says nothing that we need.
  [0x80, (_, w) => w.uint8()],
  [0x95, (_, w) => w.uint64()],
  // Constants and numbers.
  [letter("N"), (m) => m.push(null)],
  [0x88, (m) => m.push(true)],
  [0x89, (m) => m.push(false)],
  [letter("I"), (m, w) => m.push(integerLine(m, w))],
  [letter("L"), (m, w) => m.push(integerLine(m, w))],
  [letter("J"), (m, w) => m.push(w.int32())],
  [letter("K"), (m, w) => m.push(w.uint8())],
  [letter("M"), (m, w) => m.push(w.uint16())],
  [0x8a, (m, w) => m.push(integer(m, w, w.uint8()))],
  [0x8b, (m, w) => m.push(integer(m, w, w.uint32()))],
  [letter("F"), (m, w) => m.push(Number.parseFloat(ascii(w.line())))],
  [letter("G"), (m, w) => m.push(w.float64BigEndian())],
  // Text and bytes. Escapes in the lines of protocol 0 stay as they are.
  [letter("S"), (m, w) => m.push(ascii(w.line()).slice(1, -1))],
  [letter("T"), (m, w) => m.push(w.text(w.uint32()))],
  [letter("U"), (m, w) => m.push(w.text(w.uint8()))],
  [letter("V"), (m, w) => m.push(ascii(w.line()))],
  [letter("X"), (m, w) => m.push(w.text(w.uint32()))],
  [0x8c, (m, w) => m.push(w.text(w.uint8()))],
  [0x8d, (m, w) => m.push(w.text(Number(w.uint64())))],
  [letter("B"), (m, w) => m.push(w.take(w.uint32()).slice())],
  [letter("C"), (m, w) => m.push(w.take(w.uint8()).slice())],
  [0x8e, (m, w) => m.push(w.take(Number(w.uint64())).slice())],
  [0x96, (m, w) => m.push(w.take(Number(w.uint64())).slice())],
  // Containers.
  [letter(")"), (m) => m.pushContainer([])],
  [letter("t"), (m) => m.pushContainer(m.popToMark())],
  [0x85, (m) => m.pushContainer([m.pop()])],
  [0x86, (m) => m.pushContainer([m.pop(), m.pop()].reverse())],
  [0x87, (m) => m.pushContainer([m.pop(), m.pop(), m.pop()].reverse())],
  [letter("]"), (m) => m.pushContainer([])],
  [letter("l"), (m) => m.pushContainer(m.popToMark())],
  [letter("}"), (m) => m.pushContainer(new Map())],
  [letter("d"), (m) => m.pushContainer(addPairs(new Map(), m.popToMark()))],
  [0x8f, (m) => m.pushContainer(new Set())],
  [0x91, (m) => m.pushContainer(new Set(m.popToMark()))],
  [letter("a"), (m) => m.append([m.pop()])],
  [letter("e"), (m) => m.append(m.popToMark())],
  [0x90, (m) => m.append(m.popToMark())],
  [letter("s"), (m) => m.setItems([m.pop(), m.pop()].reverse())],
  [letter("u"), (m) => m.setItems(m.popToMark())],
  // Globals, calls and persistent ids. Attributes that a pickle gives to an object (BUILD) are dropped.
  [letter("c"), (m, w) => m.push(m.global(ascii(w.line()), ascii(w.line())))],
  [0x93, (m) => pushStackGlobal(m)],
  [0x82, (m, w) => m.push(new Inert(`copyreg extension ${w.uint8()}`))],
  [0x83, (m, w) => m.push(new Inert(`copyreg extension ${w.uint16()}`))],
  [0x84, (m, w) => m.push(new Inert(`copyreg extension ${w.uint32()}`))],
  [letter("R"), (m) => callTop(m)],
  [0x81, (m) => callTop(m)],
  [0x92, (m) => callWithKeywords(m)],
  [letter("i"), (m, w) => m.call(m.global(ascii(w.line()), ascii(w.line())), m.popToMark())],
  [letter("o"), (m) => callMarked(m)],
  [letter("b"), (m) => m.pop()],
  [letter("P"), (m, w) => m.persistent(ascii(w.line()))],
  [letter("Q"), (m) => m.persistent(m.pop())],
]);

function callTop(machine: Machine): void {
  const args = machine.pop();
  machine.call(machine.pop(), args);
}

/** No global that we understand takes keyword arguments. */
function callWithKeywords(machine: Machine): void {
  machine.pop();
  callTop(machine);
}

function callMarked(machine: Machine): void {
  const [callee, ...args] = machine.popToMark();
  machine.call(callee, args);
}

function pushStackGlobal(machine: Machine): void {
  const name = machine.pop();
  machine.push(machine.global(machine.pop(), name));
}

function letter(character: string): number {
  return character.charCodeAt(0);
}

function ascii(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}

function decimal(machine: Machine, window: Window): number {
  const value = integerLine(machine, window);
  return typeof value === "number" ? value : machine.fail("has a memo index that is no number");
}

/** A line such as `12`, `12L` or, for the truth values, `01` and `00`. */
function integerLine(machine: Machine, window: Window): number | bigint | boolean {
  const text = ascii(window.line());
  if (text === "01") return true;
  if (text === "00") return false;
  if (text.length > maxIntegerBytes || !/^[+-]?\d+L?$/.test(text)) machine.fail("has a malformed integer");
  return narrow(BigInt(text.replace("L", "")));
}

/** Two's complement, little endian. */
function integer(machine: Machine, window: Window, length: number): number | bigint {
  if (length > maxIntegerBytes) machine.fail(`has an integer of ${length} bytes`);
  let value = 0n;
  const bytes = window.take(length);
  for (const byte of bytes.toReversed()) value = (value << 8n) | BigInt(byte);
  return narrow(BigInt.asIntN(length * 8, value));
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
