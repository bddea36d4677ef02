/** Runs the command line: in this process, or in a process of its own where signals, exit codes or pipes are tested. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { Interrupted } from "../../src/cli/context.ts";
import { run } from "../../src/cli/run.ts";

const root = join(import.meta.dirname, "..", "..");

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs in this process. */
export interface RunningCommand {
  /** Everything that the command has printed so far. */
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  readonly outcome: Promise<Outcome>;
  /** Interrupts the command as Ctrl-C does. */
  interrupt(): void;
}

/** A stream that keeps the text that is written to it. */
class TextSink extends Writable {
  text = "";

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString();
    this.emit("text");
    done();
  }

  /** Waits until the text matches. Never resolves if it does not; race it with the outcome. */
  async match(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.text);
      if (found) return found;
      await new Promise((resolve) => this.once("text", resolve));
    }
  }
}

/** Starts a command in this process. */
export function startInProcess(args: readonly string[], stdin = "", env: NodeJS.ProcessEnv = {}): RunningCommand {
  const [stdout, stderr] = [new TextSink(), new TextSink()];
  const interruption = new AbortController();
  const outcome = run(args, {
    stdout,
    stderr,
    stdin: Readable.from([stdin]),
    env: { ...process.env, ...env },
    signal: interruption.signal,
  }).then((code) => ({ code, stdout: stdout.text, stderr: stderr.text }));
  return { stdout, stderr, outcome, interrupt: () => interruption.abort(new Interrupted("Interrupted")) };
}

/** Runs a command to its end, in this process. */
export function minigpt4(args: readonly string[], stdin = "", env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return startInProcess(args, stdin, env).outcome;
}

/** The arguments with which Node starts the command line. */
export function commandLine(args: readonly string[]): string[] {
  return [process.execPath, "--import", "tsx", join(root, "src", "cli", "main.ts"), ...args];
}

/** Starts a command in a process of its own. */
export function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const [node = "", ...rest] = commandLine(args);
  return spawn(node, rest, { cwd: root, env: { ...process.env, ...env } });
}

/** The exit code and the output of a process, when it has ended. */
export function outcome(child: ChildProcess): Promise<Outcome> {
  let [stdout, stderr] = ["", ""];
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

/** The path of an example image. */
export function image(name: string): string {
  return join(root, "examples", "images", name);
}
