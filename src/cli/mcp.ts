/** `minigpt4 mcp`: a Model Context Protocol server on standard input and output. */
import { Console } from "node:console";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import type { Engine } from "../engine/engine.ts";
import type { CommandContext } from "./context.ts";
import { addModelOptions, type ModelFlags, quantizationFlag } from "./options.ts";
import { ProgressDisplay } from "./progress.ts";

interface McpFlags extends ModelFlags {
  readonly allowFolder?: readonly string[];
}

/** Maximum size of a message: an image in base64 has to fit. */
const maxMessageBytes = 64 * 1024 * 1024;

export function defineMcp(command: Command, context: CommandContext): void {
  command
    .description(
      "Run a Model Context Protocol server on standard input and output, with the tools describe_image and ask_about_image. " +
        "The model is loaded on the first tool call.",
    )
    .option(
      "--allow-folder <folder>",
      "allow image files of this folder only (repeatable) (default: the working directory and the client's roots)",
      (folder: string, previous: readonly string[] = []) => [...previous, existingFolder(folder)],
    );
  addModelOptions(command, context)
    .addHelpText(
      "after",
      `
Configuration of most clients:
  {
    "mcpServers": {
      "minigpt4": {
        "command": "npx",
        "args": ["-y", "minigpt4", "mcp", "--allow-folder", "/home/me/Pictures"]
      }
    }
  }`,
    )
    .action((flags) => serve(context, flags, command.parent?.version() ?? ""));
}

function existingFolder(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return resolve(path);
  throw new InvalidArgumentError("No such folder.");
}

async function serve(context: CommandContext, { allowFolder, ...flags }: McpFlags, version: string): Promise<void> {
  const [{ StdioServerTransport }, { createMcpServer, LineBuffer }, { quote }] = await Promise.all([
    import("@modelcontextprotocol/sdk/server/stdio.js"),
    import("../server/mcp/mcp-server.ts"),
    import("../files/errors.ts"),
  ]);
  const { stdin, stdout } = context;
  // Standard output belongs to the protocol: what a library prints must not get between its messages.
  if (stdout === process.stdout) globalThis.console = new Console(process.stderr);
  const interrupted = context.untilInterrupted();
  const engine = await createLazyEngine(context, flags);
  const server = createMcpServer(engine.open, { version, allowedFolders: allowFolder });
  server.server.onerror = (error) => context.printError(`error: ${quote(error.message.replace(/\s+/g, " "))}`);
  const closed = new Promise<void>((resolve) => {
    server.server.onclose = resolve;
  });
  interrupted.addEventListener("abort", () => server.close());
  let failure: Error | undefined;
  const lines = new LineBuffer(maxMessageBytes)
    // Requests that arrive right before the end are still answered.
    .once("end", () => setImmediate(() => server.close()))
    .once("error", (error) => {
      failure = new Error(`${error.message}; pass a large image as a file path`);
      void server.close();
    });
  // The lines have a limit already; the one of the SDK would close the connection without a message.
  await server.connect(new StdioServerTransport(lines, stdout, { maxBufferSize: Number.POSITIVE_INFINITY }));
  if (stdin.isTTY) {
    context.printError(
      "Waiting for an MCP client on standard input. Run with --help for the configuration of clients.",
    );
  }
  stdin.pipe(lines);
  await closed;
  stdin.destroy();
  await engine.close();
  interrupted.throwIfAborted();
  if (failure) throw failure;
}

/** An engine that is loaded when it is first used. @throws Error immediately if the model is missing */
async function createLazyEngine(context: CommandContext, { model, device, ...flags }: ModelFlags) {
  const [{ modelPath }, { ProcessEngine }] = await Promise.all([
    import("../chat/models.ts"),
    import("../engine/process-engine.ts"),
  ]);
  const path = modelPath(model);
  const display = new ProgressDisplay(context);
  const closing = new AbortController();
  let engine: Promise<Engine> | undefined;
  const load = async () => {
    try {
      return await ProcessEngine.load(path, model, {
        device,
        quantization: quantizationFlag(flags),
        pull: { onProgress: display.download, signal: closing.signal },
      });
    } catch (error) {
      // The next call tries again.
      engine = undefined;
      throw error;
    } finally {
      display.stop();
    }
  };
  return {
    open(): Promise<Engine> {
      engine ??= load();
      return engine;
    },
    async close(): Promise<void> {
      closing.abort();
      await engine?.then((loaded) => loaded.close()).catch(() => {});
    },
  };
}
