/** A contestant in a process of its own, so that its memory is its own: a line is sent, it takes one step and answers. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";

export class StepProcess {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private readonly reader: Interface;

  private constructor(child: ChildProcess, reader: Interface) {
    this.child = child;
    this.reader = reader;
    this.lines = reader[Symbol.asyncIterator]();
  }

  /** @param failure what to say if it does not begin with a line that says "ready" */
  static async start(
    command: string,
    args: readonly string[],
    failure: string,
    env: NodeJS.ProcessEnv = process.env,
  ): Promise<StepProcess> {
    const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "inherit"] });
    child.on("error", () => {});
    const step = new StepProcess(child, createInterface({ input: child.stdout }));
    if ((await step.line()) !== "ready") throw new Error(failure);
    return step;
  }

  /** PyTorch's side. */
  static python(script: string, args: readonly string[]): Promise<StepProcess> {
    const python = process.env.MINIGPT4_PYTHON ?? "python3";
    const failure = `${python} could not run PyTorch; install it (pip install torch) or name another in MINIGPT4_PYTHON`;
    return StepProcess.start(python, [script, ...args], failure);
  }

  /** Ours: a TypeScript file. */
  static node(script: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<StepProcess> {
    return StepProcess.start(process.execPath, ["--import", "tsx", script, ...args], `${script} did not start`, env);
  }

  /** The answer to one line, which is JSON. */
  async ask(line: string): Promise<unknown> {
    this.child.stdin?.write(`${line}\n`);
    const answer = await this.line();
    if (answer === undefined) throw new Error("The process ended");
    return JSON.parse(answer);
  }

  stop(): void {
    this.child.stdin?.end();
    this.reader.close();
  }

  private async line(): Promise<string | undefined> {
    const { value, done } = await this.lines.next();
    return done ? undefined : value;
  }
}
