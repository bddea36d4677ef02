/** `minigpt4 chat`: a conversation about images, typed or piped in. */
import { createInterface, type Interface } from "node:readline";
import type { Command } from "commander";
import type { AnswerOptions, Conversation } from "../chat/conversation.ts";
import type { MiniGPT4 } from "../chat/minigpt4.ts";
import { readImage } from "../images/decode.ts";
import { type AnswerFlags, addAnswerOptions, answerOptions, loadModel, untilInterrupted } from "./options.ts";
import { explain, printable, readable } from "./text.ts";

interface ChatFlags extends AnswerFlags {
  readonly system?: string;
}

const help = `Type a question and Enter, or:
  /image PATH   add an image to the next question
  /new          begin a new conversation, without images
  /help         this text
  /quit         leave (also Ctrl-D)
Ctrl-C stops an answer; at the prompt it leaves.`;

export function registerChat(program: Command): void {
  const command = program
    .command("chat")
    .summary("talk about images")
    .description(
      "A conversation about images. Where standard input is no terminal, each line of it is answered as a question.",
    )
    .argument("[image]", "an image to begin with")
    .option("--system <text>", "what the model is told before the conversation");
  addAnswerOptions(command)
    .addHelpText(
      "after",
      `
${help}

Examples:
  minigpt4 chat cat.jpg
  echo "What colour is the cat?" | minigpt4 chat cat.jpg`,
    )
    .action(chat);
}

async function chat(image: string | undefined, flags: ChatFlags): Promise<void> {
  if (image !== undefined) await readImage(image);
  const signal = untilInterrupted();
  const model = await loadModel(flags, signal);
  const interactive = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  const lines = createInterface({
    input: process.stdin,
    ...(interactive && { output: process.stdout }),
    terminal: interactive,
    prompt: "> ",
  });
  try {
    const session = new ChatSession(model, flags, image === undefined ? [] : [image]);
    await (interactive ? talk(session, lines, flags.model) : answerAll(session, lines, signal));
  } finally {
    lines.close();
    await model.close();
  }
}

/** At a terminal. */
async function talk(session: ChatSession, lines: Interface, model: string): Promise<void> {
  let answering: AbortController | undefined;
  lines.on("SIGINT", () => (answering ? answering.abort() : lines.close()));
  console.log(`Chat about images with ${model}. /help shows what you can type.`);
  lines.prompt();
  for await (const line of lines) {
    answering = new AbortController();
    try {
      if ((await session.take(line, answering.signal)) === "quit") return;
    } catch (error) {
      console.log(answering.signal.aborted ? "\n(stopped)" : `error: ${printable(explain(error))}`);
    }
    answering = undefined;
    lines.prompt();
  }
  console.log();
}

/** From a pipe or a file: answers on standard output, all else on standard error. */
async function answerAll(session: ChatSession, lines: Interface, signal: AbortSignal): Promise<void> {
  for await (const line of lines) {
    try {
      if ((await session.take(line, signal)) === "quit") return;
    } catch (error) {
      signal.throwIfAborted();
      process.exitCode = 1;
      console.error(`error: ${printable(explain(error))}`);
    }
  }
}

/** A conversation, and the images that the next question will bring into it. */
class ChatSession {
  private readonly model: MiniGPT4;
  private readonly system: string | undefined;
  private readonly options: AnswerOptions;
  private conversation: Conversation;
  private images: readonly string[];

  constructor(model: MiniGPT4, flags: ChatFlags, images: readonly string[]) {
    this.model = model;
    this.system = flags.system;
    this.options = answerOptions(flags);
    this.images = images;
    this.conversation = this.begin();
  }

  /** Does what a line says: a question is answered, a command obeyed. @throws Error if that fails; nothing is changed then */
  async take(line: string, signal: AbortSignal): Promise<"quit" | undefined> {
    const [, command, rest = ""] = /^\s*\/(\w+)\s*(.*?)\s*$/s.exec(line) ?? [];
    switch (command) {
      case undefined:
        return this.ask(line.trim(), signal);
      case "image":
        return this.addImage(unquote(rest));
      case "new":
        this.conversation = this.begin();
        this.images = [];
        console.error("A new conversation. /image PATH gives it an image.");
        return;
      case "help":
        console.error(help);
        return;
      case "quit":
      case "exit":
        return "quit";
      default:
        throw new Error(`there is no command /${command}; /help shows those that there are`);
    }
  }

  private begin(): Conversation {
    return this.model.chat(this.system === undefined ? {} : { system: this.system });
  }

  private async ask(question: string, signal: AbortSignal): Promise<undefined> {
    if (question === "") {
      console.error("Type a question, for example: What is in the image?");
      return;
    }
    let begun = false;
    const pieces = this.conversation.ask(question, { ...this.options, images: this.images, signal });
    for await (const piece of pieces) {
      // Models like to begin with a space or an empty line.
      process.stdout.write(readable(begun ? piece : piece.trimStart()));
      begun ||= piece.trim() !== "";
    }
    process.stdout.write("\n");
    this.images = [];
  }

  private async addImage(path: string): Promise<undefined> {
    if (path === "") throw new Error("/image needs the path of an image");
    await readImage(path);
    this.images = [...this.images, path];
    console.error(`${printable(path)} will be shown with your next question.`);
  }
}

/** A path as a terminal writes it when a file is dropped on it. */
function unquote(path: string): string {
  return /^(["']).*\1$/s.test(path) ? path.slice(1, -1) : path;
}
