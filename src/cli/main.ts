#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { registerCache } from "./cache.ts";
import { registerChat } from "./chat.ts";
import { registerCurate } from "./curate.ts";
import { registerDelta } from "./delta.ts";
import { registerDemo } from "./demo.ts";
import { registerDescribe } from "./describe.ts";
import { registerDoctor } from "./doctor.ts";
import { registerEncode } from "./encode.ts";
import { registerEvaluate } from "./evaluate.ts";
import { registerExport } from "./export.ts";
import { registerImport } from "./import.ts";
import { registerInspect } from "./inspect.ts";
import { registerMcp } from "./mcp.ts";
import { Interrupted, interruptedExitCode } from "./options.ts";
import { registerPlot } from "./plot.ts";
import { registerPull } from "./pull.ts";
import { registerSearch } from "./search.ts";
import { registerServe } from "./serve.ts";
import { explain, printable } from "./text.ts";
import { registerTrain } from "./train.ts";

/** The command line. Each command registers itself; whatever fails in one ends here, as one line. */

const commands: readonly ((program: Command) => void)[] = [
  registerDescribe,
  registerChat,
  registerSearch,
  registerServe,
  registerMcp,
  registerPull,
  registerImport,
  registerDelta,
  registerInspect,
  registerDoctor,
  registerExport,
  registerEncode,
  registerCache,
  registerTrain,
  registerPlot,
  registerEvaluate,
  registerCurate,
  registerDemo,
];

const exitCodes = { failed: 1, usage: 2 };

// A reader that has seen enough (`minigpt4 inspect FILE | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

const program = new Command("minigpt4")
  .description("MiniGPT-4: chat about images, and train such a model yourself.")
  .version(packageVersion(), "-V, --version", "print the version")
  .option("--verbose", "show where in the code an error comes from (also MINIGPT4_DEBUG=1)")
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride()
  .addHelpText(
    "after",
    `
Examples:
  minigpt4 demo
  minigpt4 describe cat.jpg
  minigpt4 chat cat.jpg
  minigpt4 serve
  minigpt4 COMMAND --help`,
  );
for (const register of commands) register(program);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Tells what went wrong, once; the exit code that says so. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage;
  if (error instanceof Interrupted) return interruptedExitCode;
  const verbose = program.opts().verbose || process.env.MINIGPT4_DEBUG === "1";
  if (verbose) console.error(error);
  else console.error(`error: ${explain(error).split("\n").map(printable).join("\n")}`);
  return exitCodes.failed;
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return version;
}
