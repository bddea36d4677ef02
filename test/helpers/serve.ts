/** `minigpt4 serve` as a process of its own. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { start } from "./cli-command.ts";

export interface ServeProcess {
  readonly url: string;
  readonly port: number;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
}

/** Starts a server, and waits until it answers. @throws Error with what it said if it ends before */
export async function serve(
  model: string,
  { port = 0, env = {}, flags = [] }: { port?: number; env?: NodeJS.ProcessEnv; flags?: readonly string[] } = {},
): Promise<ServeProcess> {
  const child = start(["serve", "--model", model, "--port", String(port), "--quiet", ...flags], env);
  const url = await firstUrl(child);
  return {
    url,
    port: Number(new URL(url).port),
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  };
}

function firstUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    const hear = (data: string) => {
      said += data;
      const [url] = /http:\/\/[\w.:[\]]+/.exec(said) ?? [];
      if (url) resolve(url);
    };
    child.stdout?.setEncoding("utf8").on("data", hear);
    child.stderr?.setEncoding("utf8").on("data", (data) => {
      said += data;
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`minigpt4 serve ended with ${code}: ${said}`)));
  });
}
