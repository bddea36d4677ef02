import { expect, test } from "vitest";
import { Window } from "../../../src/formats/header.ts";
import { Callable, Inert, unpickle } from "../../../src/formats/torch/pickle.ts";

const environment = {
  globals: new Map([
    ["known.sum", new Callable(([a, b]) => Number(a) + Number(b))],
    ["known.costly", new Callable((_, spend) => spend(2000))],
  ]),
  persistent: (id: unknown) => ({ persistent: id }),
};

function read(pickle: string): unknown {
  const bytes = Buffer.from(pickle, "latin1");
  return unpickle(new Window(bytes, 0, bytes.length), environment);
}

test.each([
  ["I12\n.", 12],
  ["I01\n.", true],
  ["L-123456789012345678901234L\n.", -123456789012345678901234n],
  ["F1.5\n.", 1.5],
  ["S'text'\n.", "text"],
  ["\x80\x02\x8a\x00.", 0],
  ["\x80\x02\x8a\x02\x00\xff.", -256],
  ["\x80\x02J\xff\xff\xff\xff.", -1],
  ["\x80\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00.", 1.5],
  ["\x80\x02X\x02\x00\x00\x00\xc3\xa9.", "é"],
  ["\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94\x8c\x01b\x94h\x00\x87.", ["a", "b", "a"]],
  ["(lp0\nI1\naI2\na.", [1, 2]],
  ["(dS'k'\nI1\ns.", new Map([["k", 1]])],
  [
    "\x80\x02}(K\x01K\x02K\x03K\x04u.",
    new Map([
      [1, 2],
      [3, 4],
    ]),
  ],
  ["\x80\x04\x8f(K\x01K\x01\x90.", new Set([1])],
  ["\x80\x02K\x07Q.", { persistent: 7 }],
  ["cknown\nsum\n(I2\nI3\ntR.", 5],
  ["\x80\x04\x8c\x05known\x8c\x03sum\x93K\x02K\x03\x86R.", 5],
])("reads %j", (pickle, value) => {
  expect(read(pickle)).toEqual(value);
});

// Each way in which a pickle can ask for `os.system("touch x")`.
test.each([
  ["REDUCE", "cos\nsystem\n(S'touch x'\ntR."],
  ["posix", "cposix\nsystem\n(S'touch x'\ntR."],
  ["INST", "(S'touch x'\nios\nsystem\n."],
  ["OBJ", "(cos\nsystem\nS'touch x'\no."],
  ["NEWOBJ", "\x80\x02cos\nsystem\n(S'touch x'\nt\x81."],
  ["NEWOBJ_EX", "\x80\x04cos\nsystem\n(S'touch x'\nt}\x92."],
  ["STACK_GLOBAL", "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x07touch x\x85R."],
  ["BUILD", "\x80\x02cos\nsystem\n)R}(S'a'\nI1\nub."],
  ["items", "\x80\x02cos\nsystem\n)R(S'a'\nI1\nu(I1\ne."],
])("does not call a global: %s", (_, pickle) => {
  const value = read(pickle);
  expect(value).toBeInstanceOf(Inert);
  expect((value as Inert).name).toMatch(/^(os|posix)\.system$/);
});

test.each([
  ["an empty file", ""],
  ["no end", "\x80\x02K\x01"],
  ["an empty stack", "."],
  ["values below a mark", "K\x01(."],
  ["a missing mark", "t."],
  ["a missing memo", "h\x05."],
  ["an unknown opcode", "\xff."],
  ["text longer than the file", "\x80\x02X\xff\xff\xff\xff."],
  ["text of 2^60 bytes", "\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x10."],
  ["a call of a number", "K\x01)R."],
  ["an item of a number", "K\x01K\x02a."],
  ["a line without end", "cos"],
])("refuses %s, and names the byte", (_, pickle) => {
  expect(() => read(pickle)).toThrow(/byte \d/);
});

// Each of these would be read but for its limit: they are complete and well-formed.
test.each([
  ["containers", "}".repeat(1_000_001), "holds more than 1000000 containers, at byte 1000001"],
  ["steps", "N".repeat(4_000_001), "takes more than 4000000 steps, at byte 4000001"],
  ["steps in calls", costlyCalls(3000), "takes more than 4000000 steps"],
  ["bytes of an integer", `\x80\x02\x8b\x01\x01\x00\x00${"\x01".repeat(257)}`, "has an integer of 257 bytes"],
  ["digits of an integer", `L${"9".repeat(256)}L\n`, "has a malformed integer"],
])("refuses too many %s", (_, pickle, message) => {
  expect(() => read(`${pickle}.`)).toThrow(message);
});

test.each([
  ["containers", "}".repeat(1_000_000)],
  ["steps", "N".repeat(4_000_000)],
  ["bytes of an integer", `\x80\x02\x8b\x00\x01\x00\x00${"\x01".repeat(256)}`],
  ["digits of an integer", `L${"9".repeat(255)}L\n`],
])("reads as many %s as allowed", (_, pickle) => {
  expect(() => read(`${pickle}.`)).not.toThrow();
});

/** Calls of a function that spends 2000 steps each time. */
function costlyCalls(count: number): string {
  return `cknown\ncostly\np0\n0${"g0\n)R0".repeat(count)}N`;
}

test("shared values take no more memory than in the file", () => {
  // [[x, x], [x, x]] ... 100,000 deep: 2^100000 leaves if it were unfolded.
  const level = "h\x00h\x00\x86q\x00";
  expect(read(`\x80\x02]q\x00${level.repeat(100_000)}.`)).toHaveLength(2);
});
