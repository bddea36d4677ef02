#!/usr/bin/env node
/** The program `minigpt4`: runs the command line with the streams of this process. */
import { run } from "./run.ts";

// A reader that closes the pipe early (`minigpt4 inspect FILE | head`) is not an error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

const { stdout, stderr, stdin, env } = process;
process.exitCode = await run(process.argv.slice(2), { stdout, stderr, stdin, env });
