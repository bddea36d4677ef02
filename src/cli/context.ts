/** What a command works with: where it prints, what it reads, and how it is interrupted. */
import type { Readable, Writable } from "node:stream";

/** The streams and settings of one call of the command line. A test passes its own; `main.ts` those of the process. */
export interface CommandIo {
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly env: NodeJS.ProcessEnv;
  /** Interrupts the command, as Ctrl-C does. By default the signals of the process do. */
  readonly signal?: AbortSignal;
}

/** Thrown where work was stopped by Ctrl-C. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** Exit codes; 130 is what a shell reports of a program that Ctrl-C ended. */
export const exitCodes = { success: 0, failure: 1, usage: 2, interrupted: 130 } as const;

export class CommandContext implements CommandIo {
  readonly stdout: CommandIo["stdout"];
  readonly stderr: CommandIo["stderr"];
  readonly stdin: CommandIo["stdin"];
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  private readonly warnings = new Set<string>();
  /** The exit code of a command that does not throw. */
  exitCode: number = exitCodes.success;

  constructor({ stdout, stderr, stdin, env, signal }: CommandIo) {
    this.stdout = stdout;
    this.stderr = stderr;
    this.stdin = stdin;
    this.env = env;
    this.signal = signal;
  }

  /** Prints a line of the result on standard output. */
  print(line = ""): void {
    this.stdout.write(`${line}\n`);
  }

  /** Prints a line that is not part of the result on standard error. */
  printError(line: string): void {
    this.stderr.write(`${line}\n`);
  }

  /** Prints a warning on standard error, once per command. */
  warnOnce(line: string): void {
    if (this.warnings.has(line)) return;
    this.warnings.add(line);
    this.printError(line);
  }

  /** Marks the command as failed; it continues. */
  fail(): void {
    this.exitCode = exitCodes.failure;
  }

  /**
   * A signal for the work of a command: the first Ctrl-C aborts it with `Interrupted`, so that the command can clean up;
   * the second ends the process immediately.
   * @param names signals of the process that count as Ctrl-C
   */
  untilInterrupted(...names: readonly NodeJS.Signals[]): AbortSignal {
    if (this.signal) return this.signal;
    const controller = new AbortController();
    for (const name of names.length > 0 ? names : (["SIGINT"] as const)) {
      process.on(name, () => {
        if (controller.signal.aborted) process.exit(exitCodes.interrupted);
        controller.abort(new Interrupted("Interrupted"));
      });
    }
    return controller.signal;
  }
}
