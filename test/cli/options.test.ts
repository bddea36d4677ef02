import { Command, CommanderError } from "commander";
import { beforeEach, expect, test } from "vitest";
import type { CommandContext } from "../../src/cli/context.ts";
import { type AnswerFlags, addAnswerOptions, answerOptions, quantizationFlag } from "../../src/cli/options.ts";
import { minigpt4 } from "../helpers/cli-command.ts";

let warnings: string[] = [];
beforeEach(() => {
  warnings = [];
});

/** The parsed options of a command line, or the error. */
function parse(line: string): AnswerFlags | string {
  let message = "";
  const program = new Command().exitOverride().configureOutput({ writeErr: (text) => (message += text) });
  const warnOnce = (warning: string) => warnings.push(warning);
  const context = { warnOnce } as Partial<CommandContext> as CommandContext;
  const command = addAnswerOptions(program.command("describe").argument("<image...>"), context).action(() => {});
  try {
    program.parse(line.split(" "), { from: "user" });
    return command.opts();
  } catch (error) {
    expect(error).toBeInstanceOf(CommanderError);
    return message;
  }
}

function answerOf(line: string) {
  const flags = parse(`describe x ${line}`);
  if (typeof flags === "string") throw new Error(flags);
  return answerOptions(flags);
}

test.each([
  ["--top-k 2.5", "'--top-k <k>' argument '2.5' is invalid. Expected an integer between 1 and 1000000"],
  ["--temperature warm", "'--temperature <t>' argument 'warm' is invalid. Expected a number between 0 and 10"],
  ["--temperature -1", "'--temperature <t>' argument '-1' is invalid"],
  ["--temperature NaN", "'--temperature <t>' argument 'NaN' is invalid"],
  ["--repetition-penalty 0", "Expected a number between 0.1 and 10"],
  ["--max-new-tokens 0", "Expected an integer between 1 and 1999"],
  ["--seed", "'--seed <s>' argument missing"],
  ["--seed=", "Expected an integer between 0 and 4294967295"],
  ["--beams 1e9", "Expected an integer between 1 and 32"],
  ["--beams 3 --temperature 1", "'--beams <n>' cannot be used with option '--temperature <t>'"],
  ["--device abacus", "Allowed choices are auto, cpu"],
  ["--quantization int1", "Allowed choices are native, float32, int4"],
  ["--quantization int4 --block-size 48", "Allowed choices are 32, 64, 128"],
  ["--precision int1", "Allowed choices are native, float32, int4"],
  ["--loud", "unknown option '--loud'"],
])("refused: %s", (options, message) => {
  expect(parse(`describe x ${options}`)).toContain(message);
});

test("without options, the bundled model decodes greedily", () => {
  expect(parse("describe x")).toEqual({ model: "nano", device: "auto" });
  expect(answerOf("")).toMatchObject({ temperature: 0 });
});

test.each([
  ["--quantization native", "native", []],
  ["--quantization int4", "int4", []],
  ["--quantization int4 --block-size 64", { bits: 4, blockSize: 64 }, []],
  ["--quantization stored", "native", ["--quantization native"]],
  ["--precision stored", "native", ["--quantization", "--quantization native"]],
  ["--precision int4-128", { bits: 4, blockSize: 128 }, ["--block-size"]],
  ["", undefined, []],
])("the quantization of a model: %s", (options, quantization, warned) => {
  const flags = parse(`describe x ${options}`.trim());
  if (typeof flags === "string") throw new Error(flags);
  expect(quantizationFlag(flags)).toEqual(quantization);
  expect(warnings).toEqual(warned.map((name) => expect.stringContaining(name)));
});

test("a block size needs int4", () => {
  expect(() => quantizationFlag({ quantization: "native", blockSize: "32" })).toThrow("needs --quantization int4");
});

test("options are passed to the library", () => {
  const line = "--temperature 0.7 --top-p .9 --top-k 50 --repetition-penalty 1.05 --max-new-tokens 20 --seed 3";
  expect(answerOf(line)).toEqual({
    numBeams: undefined,
    temperature: 0.7,
    topP: 0.9,
    topK: 50,
    repetitionPenalty: 1.05,
    maxNewTokens: 20,
    seed: 3,
  });
  expect(answerOf("--beams 4")).toMatchObject({ numBeams: 4, temperature: 0 });
});

test("top-p or top-k alone samples with temperature 1", () => {
  expect(answerOf("--top-p 0.9")).toMatchObject({ temperature: 1, topP: 0.9 });
  expect(answerOf("--top-k 5")).toMatchObject({ temperature: 1, topK: 5 });
  expect(answerOf("--top-k 5 --temperature 0")).toMatchObject({ temperature: 0 });
});

test("pull lists the known names", async () => {
  expect((await minigpt4(["pull", "enormous"])).stderr).toContain(
    "Known names: minigpt4-7b, minigpt4-13b, smollm2-135m-instruct",
  );
  expect((await minigpt4(["pull", "nano"])).stderr).toContain("nano is bundled");
});

test("deprecated flags and values still work, and name the new ones once", async () => {
  const wrong = await minigpt4(["serve", "--max-pictures", "0"]);
  expect(wrong).toMatchObject({ code: 2, stdout: "" });
  expect(wrong.stderr).toContain("warning: --max-pictures is deprecated; use --max-images\n");
  expect(wrong.stderr).toContain("'--max-images <n>' argument '0' is invalid. Expected an integer between 1 and 1000.");
  const doctor = await minigpt4(["doctor", "nowhere/at-all", "--skip", "pictures", "language", "pictures", "--json"]);
  expect(doctor.stderr).toBe("warning: --skip pictures is deprecated; use --skip images\n");
  expect((await minigpt4(["serve", "--help"])).stdout).not.toContain("pictures");
});
