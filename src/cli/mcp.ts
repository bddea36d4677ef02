/** `minigpt4 mcp`: a Model Context Protocol server on standard input and output. */
import { Console } from "node:console";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { type Command, InvalidArgumentError } from "commander";
import { modelPath } from "../chat/minigpt4.ts";
import type { Engine } from "../engine/engine.ts";
import { ProcessEngine } from "../engine/process-engine.ts";
import { quote } from "../files/file.ts";
import { createMcpServer, LineBuffer } from "../server/mcp/mcp-server.ts";
import { addModelOptions, type ModelFlags, untilInterrupted } from "./options.ts";
import { downloadDisplay } from "./progress.ts";

interface McpFlags extends ModelFlags {
  readonly allowFolder?: readonly string[];
}

/** Of one message; an image in base64 has to fit. */
const maxMessageBytes = 64 * 1024 * 1024;

export function registerMcp(program: Command): void {
  const command = program
    .command("mcp")
    .summary("offer the model to MCP clients, such as assistants and editors")
    .description(
      "A Model Context Protocol server on standard input and output, with the tools describe_image and ask_about_image. " +
        "The model is loaded when a tool is first called.",
    )
    .option(
      "--allow-folder <folder>",
      "read image files from this folder only (repeatable); default: the working directory and the client's roots",
      (folder: string, before: readonly string[] = []) => [...before, existingFolder(folder)],
    );
  addModelOptions(command)
    .addHelpText(
      "after",
      `
What most clients need in their configuration:
  {
    "mcpServers": {
      "minigpt4": {
        "command": "npx",
        "args": ["-y", "minigpt4", "mcp", "--allow-folder", "/home/me/Images"]
      }
    }
  }`,
    )
    .action((flags: McpFlags) => serve(flags, program.version() ?? ""));
}

function existingFolder(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return resolve(path);
  throw new InvalidArgumentError("There is no such folder.");
}

async function serve({ allowFolder, ...flags }: McpFlags, version: string): Promise<void> {
  // Whatever else is printed must not get between the messages of the protocol.
  globalThis.console = new Console(process.stderr);
  const interrupted = untilInterrupted();
  const engine = engineOnDemand(flags);
  const server = createMcpServer(engine.open, { version, allowedFolders: allowFolder });
  server.server.onerror = (error) => console.error(`error: ${quote(error.message.replace(/\s+/g, " "))}`);
  const closed = new Promise<void>((resolve) => {
    server.server.onclose = resolve;
  });
  interrupted.addEventListener("abort", () => server.close());
  let failure: Error | undefined;
  const lines = new LineBuffer(maxMessageBytes)
    // What was asked right before the end is given a turn to be answered.
    .once("end", () => setImmediate(() => server.close()))
    .once("error", (error) => {
      failure = new Error(`${error.message}; give a large image as the path of a file`);
      void server.close();
    });
  // The limit is that of the lines; the SDK's own would close the connection without a word.
  await server.connect(new StdioServerTransport(lines, process.stdout, { maxBufferSize: Number.POSITIVE_INFINITY }));
  if (process.stdin.isTTY) {
    console.error("Waiting for an MCP client on standard input; --help shows how clients start this.");
  }
  process.stdin.pipe(lines);
  await closed;
  process.stdin.destroy();
  await engine.close();
  interrupted.throwIfAborted();
  if (failure) throw failure;
}

/** The engine that the options name, loaded when it is first needed. @throws Error at once if there is no such model */
function engineOnDemand({ model, device, precision }: ModelFlags) {
  const path = modelPath(model);
  const { onProgress, stop } = downloadDisplay();
  const releasing = new AbortController();
  let engine: Promise<Engine> | undefined;
  const load = async () => {
    try {
      return await ProcessEngine.load(path, model, {
        device,
        precision,
        pull: { onProgress, signal: releasing.signal },
      });
    } catch (error) {
      // The next call tries again.
      engine = undefined;
      throw error;
    } finally {
      stop();
    }
  };
  return {
    open(): Promise<Engine> {
      engine ??= load();
      return engine;
    },
    async close(): Promise<void> {
      releasing.abort();
      await engine?.then((loaded) => loaded.close()).catch(() => {});
    },
  };
}
