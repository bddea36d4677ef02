import { Command, CommanderError } from "commander";
import { expect, test } from "vitest";
import { type AnswerFlags, addAnswerOptions, answerOptions } from "../../src/cli/options.ts";
import { registerPull } from "../../src/cli/pull.ts";

/** The options of a command line, or what is said against it. */
function parse(line: string): AnswerFlags | string {
  let said = "";
  const program = new Command().exitOverride().configureOutput({ writeErr: (text) => (said += text) });
  const command = addAnswerOptions(program.command("describe").argument("<image...>")).action(() => {});
  registerPull(program);
  try {
    program.parse(line.split(" "), { from: "user" });
    return command.opts();
  } catch (error) {
    expect(error).toBeInstanceOf(CommanderError);
    return said;
  }
}

function answerOf(line: string) {
  const flags = parse(`describe x ${line}`);
  if (typeof flags === "string") throw new Error(flags);
  return answerOptions(flags);
}

test.each([
  ["--top-k 2.5", "'--top-k <k>' argument '2.5' is invalid. It should be a whole number between 1 and 1000000"],
  ["--temperature warm", "'--temperature <t>' argument 'warm' is invalid. It should be a number between 0 and 10"],
  ["--temperature -1", "'--temperature <t>' argument '-1' is invalid"],
  ["--temperature NaN", "'--temperature <t>' argument 'NaN' is invalid"],
  ["--repetition-penalty 0", "It should be a number between 0.1 and 10"],
  ["--max-new-tokens 0", "It should be a whole number between 1 and 1999"],
  ["--seed", "'--seed <s>' argument missing"],
  ["--seed=", "It should be a whole number between 0 and 4294967295"],
  ["--beams 1e9", "It should be a whole number between 1 and 32"],
  ["--beams 3 --temperature 1", "'--beams <n>' cannot be used with option '--temperature <t>'"],
  ["--device abacus", "Allowed choices are auto, cpu"],
  ["--precision int1", "Allowed choices are float32, int4, int4-128"],
  ["--loud", "unknown option '--loud'"],
])("refused: %s", (options, message) => {
  expect(parse(`describe x ${options}`)).toContain(message);
});

test("without options, the likeliest token is taken by the shipped model", () => {
  expect(parse("describe x")).toEqual({ model: "nano", device: "auto" });
  expect(answerOf("")).toMatchObject({ temperature: 0 });
});

test("options become the library's", () => {
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

test("top-p or top-k alone draws with temperature 1", () => {
  expect(answerOf("--top-p 0.9")).toMatchObject({ temperature: 1, topP: 0.9 });
  expect(answerOf("--top-k 5")).toMatchObject({ temperature: 1, topK: 5 });
  expect(answerOf("--top-k 5 --temperature 0")).toMatchObject({ temperature: 0 });
});

test("pull lists what it knows", () => {
  expect(parse("pull enormous")).toContain("Known names: minigpt4-7b, minigpt4-13b, smollm2-135m-instruct");
  expect(parse("pull nano")).toContain("nano comes with the package");
});
