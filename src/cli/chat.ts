/** `minigpt4 chat`: a conversation about images, typed or piped in. */
import { createInterface, type Interface } from "node:readline";
import type { Command } from "commander";
import type { AnswerOptions, Conversation } from "../chat/conversation.ts";
import type { MiniGPT4 } from "../chat/minigpt4.ts";
import { describeError, printable } from "../files/errors.ts";
import type { CommandContext } from "./context.ts";
import { type AnswerFlags, addAnswerOptions, answerOptions, loadModel } from "./options.ts";
import { readable } from "./text.ts";

interface ChatFlags extends AnswerFlags {
  readonly system?: string;
}

const help = `Type a question and press Enter, or:
  /image PATH   add an image to your next question
  /new          start a new conversation without images
  /help         show this help
  /quit         exit (also Ctrl-D)
Ctrl-C stops an answer; at the prompt it exits.`;

export function defineChat(command: Command, context: CommandContext): void {
  command
    .description(
      "Chat about images. If standard input is not a terminal, each of its lines is a question of one conversation.",
    )
    .argument("[image]", "an image for the first question")
    .option("--system <text>", "system prompt (default: the model's prompt template)");
  addAnswerOptions(command, context)
    .addHelpText(
      "after",
      `
${help}

Examples:
  minigpt4 chat cat.jpg
  echo "What colour is the cat?" | minigpt4 chat cat.jpg`,
    )
    .action((image, flags) => chat(context, image, flags));
}

async function chat(context: CommandContext, image: string | undefined, flags: ChatFlags): Promise<void> {
  const { readImage } = await import("../images/decode.ts");
  // A wrong path is reported before the model is loaded.
  if (image !== undefined) await readImage(image);
  const signal = context.untilInterrupted();
  const model = await loadModel(context, flags, { signal });
  const { stdin, stdout } = context;
  const interactive = Boolean(stdin.isTTY && stdout.isTTY);
  const lines = createInterface({
    input: stdin,
    output: interactive ? stdout : undefined,
    terminal: interactive,
    prompt: "> ",
  });
  try {
    const session = new ChatSession(context, model, { ...flags, images: image === undefined ? [] : [image] });
    await (interactive ? chatInTerminal(session, lines, flags.model) : answerLines(session, lines, signal));
  } finally {
    lines.close();
    await model.close();
  }
}

async function chatInTerminal(session: ChatSession, lines: Interface, model: string): Promise<void> {
  const { context } = session;
  let answering: AbortController | undefined;
  lines.on("SIGINT", () => (answering ? answering.abort() : lines.close()));
  context.print(`Chat about images with ${model}. Type /help for help.`);
  lines.prompt();
  for await (const line of lines) {
    answering = new AbortController();
    try {
      if ((await session.handle(line, answering.signal)) === "quit") return;
    } catch (error) {
      context.print(answering.signal.aborted ? "\n(stopped)" : `error: ${printable(describeError(error))}`);
    }
    answering = undefined;
    lines.prompt();
  }
  context.print();
}

/** Answers the lines of a pipe or a file: answers go to standard output, everything else to standard error. */
async function answerLines(session: ChatSession, lines: Interface, signal: AbortSignal): Promise<void> {
  for await (const line of lines) {
    try {
      if ((await session.handle(line, signal)) === "quit") return;
    } catch (error) {
      signal.throwIfAborted();
      session.context.fail();
      session.context.printError(`error: ${printable(describeError(error))}`);
    }
  }
}

/** A conversation, and the images for its next question. */
class ChatSession {
  readonly context: CommandContext;
  private readonly model: MiniGPT4;
  private readonly system: string | undefined;
  private readonly options: AnswerOptions;
  private conversation: Conversation;
  private images: readonly string[];

  constructor(context: CommandContext, model: MiniGPT4, flags: ChatFlags & { readonly images: readonly string[] }) {
    this.context = context;
    this.model = model;
    this.system = flags.system;
    this.options = answerOptions(flags);
    this.images = flags.images;
    this.conversation = this.start();
  }

  /** Answers a question or executes a command. @throws Error if that fails, which leaves the conversation unchanged */
  async handle(line: string, signal: AbortSignal): Promise<"quit" | undefined> {
    const [, command, argument = ""] = /^\s*\/(\w+)\s*(.*?)\s*$/s.exec(line) ?? [];
    switch (command) {
      case undefined:
        return this.ask(line.trim(), signal);
      case "image":
        return this.addImage(unquote(argument));
      case "new":
        this.conversation = this.start();
        this.images = [];
        this.context.printError("Started a new conversation. Add an image with /image PATH.");
        return;
      case "help":
        this.context.printError(help);
        return;
      case "quit":
      case "exit":
        return "quit";
      default:
        throw new Error(`unknown command /${command}; type /help for the list of commands`);
    }
  }

  private start(): Conversation {
    return this.model.chat({ system: this.system });
  }

  private async ask(question: string, signal: AbortSignal): Promise<undefined> {
    if (question === "") {
      this.context.printError("Type a question, for example: What is in the image?");
      return;
    }
    const { stdout } = this.context;
    let isEmpty = true;
    for await (const text of this.conversation.ask(question, { ...this.options, images: this.images, signal })) {
      // Models like to begin with a space or an empty line.
      stdout.write(readable(isEmpty ? text.trimStart() : text));
      isEmpty &&= text.trim() === "";
    }
    stdout.write("\n");
    this.images = [];
  }

  private async addImage(path: string): Promise<undefined> {
    if (path === "") throw new Error("/image needs the path of an image");
    const { readImage } = await import("../images/decode.ts");
    await readImage(path);
    this.images = [...this.images, path];
    this.context.printError(`Added ${printable(path)} to your next question.`);
  }
}

/** A path as a terminal writes it when a file is dropped on it. */
function unquote(path: string): string {
  return /^(["']).*\1$/s.test(path) ? path.slice(1, -1) : path;
}
