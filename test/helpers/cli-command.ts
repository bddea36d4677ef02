/** Runs the command line as a user does, in a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";

const root = join(import.meta.dirname, "..", "..");

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How Node starts the command line. */
export function commandLine(args: readonly string[]): string[] {
  return [process.execPath, "--import", "tsx", join(root, "src", "cli", "main.ts"), ...args];
}

export function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const [node = "", ...rest] = commandLine(args);
  return spawn(node, rest, { cwd: root, env: { ...process.env, ...env } });
}

/** The exit code, and all that was printed. */
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

/** Runs a command to its end. */
export function minigpt4(args: readonly string[], stdin = "", env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const child = start(args, env);
  child.stdin?.end(stdin);
  return outcome(child);
}

export function image(name: string): string {
  return join(root, "examples", "images", name);
}
