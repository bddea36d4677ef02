/** A Model Context Protocol server: tools with which a client, often another language model, asks about images. */

import { Transform, type TransformCallback } from "node:stream";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import type { RequestHandlerExtra } from "@modelcontextprotocol/sdk/shared/protocol.js";
import type {
  CallToolResult,
  ServerNotification,
  ServerRequest,
  ToolAnnotations,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import type { Engine, GenerationRequest, ImageInput } from "../../engine/engine.ts";
import type { Turn } from "../../tokenizers/prompts.ts";
import { defaultFolders, imageSchema, parseRoots, resolveImage } from "./mcp-images.ts";

export interface McpOptions {
  /** Of this package. */
  readonly version: string;
  /** Image files are read from these folders only. Without it: from the working directory, and the client's roots. */
  readonly allowedFolders?: readonly string[];
  /** Default: the process's. */
  readonly workingDirectory?: string;
}

/** What a tool may do with its client while it answers. */
type Client = RequestHandlerExtra<ServerRequest, ServerNotification>;

/** Milliseconds. A client that offers roots but does not say them is treated as one that has none. */
const rootsTimeout = 5000;

const instructions = `Describes images and answers questions about them with a small vision-language model that runs on this \
computer; images are not sent anywhere. Its answers can be wrong. Images are given as paths of files, or as base64 data.`;

const decodingSchema = {
  max_new_tokens: z.int().min(1).max(100_000).optional().describe("Longest answer in tokens; default 300"),
  temperature: z
    .number()
    .min(0)
    .max(10)
    .optional()
    .describe("0, the default, always takes the likeliest word; higher is more varied"),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional()
    .describe("With a temperature, the same seed gives the same answer"),
};

const finishReason = z.enum(["stop", "length"]).describe('"length" if the answer was cut off at max_new_tokens');

/** Asking changes nothing, and everything is on this computer. */
const annotations: ToolAnnotations = { readOnlyHint: true, openWorldHint: false };

/**
 * A server that is to be connected to a transport. The engine is opened when it is first needed, so that the client's
 * `initialize` is answered at once; `openEngine` is called for each answer and gives the same engine every time.
 */
export function createMcpServer(openEngine: () => Promise<Engine>, options: McpOptions): McpServer {
  const server = new McpServer({ name: "minigpt4", title: "MiniGPT-4", version: options.version }, { instructions });
  const { workingDirectory = process.cwd() } = options;

  async function imagesOf(inputs: readonly z.infer<typeof imageSchema>[], client: Client): Promise<ImageInput[]> {
    const allowed = options.allowedFolders ?? [
      ...defaultFolders(workingDirectory),
      ...(inputs.some((input) => typeof input === "string") ? await clientFolders(server, client) : []),
    ];
    return Promise.all(inputs.map((input) => resolveImage(input, { workingDirectory, allowed })));
  }

  server.registerTool(
    "describe_image",
    {
      title: "Describe an image",
      description: "Says what an image shows.",
      inputSchema: z.strictObject({ image: imageSchema, ...decodingSchema }),
      outputSchema: { description: z.string(), finish_reason: finishReason },
      annotations,
    },
    async ({ image, ...decoding }, client) => {
      const images = await imagesOf([image], client);
      const { text, reason } = await answer(openEngine, { turns: "describe", images, ...asked(decoding) }, client);
      return result(text, { description: text, finish_reason: reason });
    },
  );

  server.registerTool(
    "ask_about_image",
    {
      title: "Ask about an image",
      description: "Answers a question about one or several images, also as the next one of a conversation about them.",
      inputSchema: z.strictObject({
        question: z.string().regex(/\S/, "The question is empty"),
        images: z.array(imageSchema).min(1).max(16).describe("They are shown before the first question, in this order"),
        earlier_turns: z
          .array(z.object({ question: z.string(), answer: z.string() }))
          .optional()
          .describe("The conversation about these images so far, oldest first"),
        ...decodingSchema,
      }),
      outputSchema: { answer: z.string(), finish_reason: finishReason },
      annotations,
    },
    async ({ question, images: inputs, earlier_turns = [], ...decoding }, client) => {
      const images = await imagesOf(inputs, client);
      const turns = conversation(earlier_turns, question, images.length);
      const { text, reason } = await answer(openEngine, { turns, images, ...asked(decoding) }, client);
      return result(text, { answer: text, finish_reason: reason });
    },
  );
  return server;
}

/** The folders that the client offers, asked anew each time: they may change, and asking is quick. */
async function clientFolders(server: McpServer, { signal }: Client): Promise<string[]> {
  if (!server.server.getClientCapabilities()?.roots) return [];
  const { roots } = await server.server
    .listRoots(undefined, { signal, timeout: rootsTimeout })
    .catch(() => ({ roots: [] }));
  return parseRoots(roots);
}

function asked(decoding: { max_new_tokens?: number; temperature?: number; seed?: number }): Partial<GenerationRequest> {
  const { max_new_tokens: maxNewTokens, temperature = 0, seed } = decoding;
  return { maxNewTokens, temperature, seed, overflow: "refuse" };
}

function conversation(
  earlier: readonly { readonly question: string; readonly answer: string }[],
  question: string,
  images: number,
): Turn[] {
  const questions = [...earlier.map((turn) => turn.question), question];
  return questions.flatMap((text, i): Turn[] => {
    const asked: Turn = { role: "user", text, images: i === 0 ? images : 0 };
    const answered = earlier[i]?.answer;
    return answered === undefined ? [asked] : [asked, { role: "assistant", text: answered }];
  });
}

/** The whole answer. A client that wants to know how it goes is told each piece. */
async function answer(openEngine: () => Promise<Engine>, question: GenerationRequest, client: Client) {
  let progress = 0;
  const tell = async (message: string) => {
    const progressToken = client._meta?.progressToken;
    if (progressToken === undefined) return;
    const params = { progressToken, progress: progress++, message };
    await client.sendNotification({ method: "notifications/progress", params });
  };
  await tell("Loading the model");
  const engine = await openEngine();
  client.signal.throwIfAborted();
  let text = "";
  let reason: z.infer<typeof finishReason> = "stop";
  for await (const event of engine.generate(question, client.signal)) {
    if (event.kind === "end") reason = event.reason;
    if (event.kind !== "text") continue;
    text += event.text;
    await tell(text.trim());
  }
  return { text: text.trim(), reason };
}

/** Structured, and as text for clients that know no structure. */
function result(text: string, structuredContent: Record<string, unknown>): CallToolResult {
  return { content: [{ type: "text", text }], structuredContent };
}

// A byte stream in whole lines: what reads messages line by line need not join and search their beginnings again and again.

const newline = 0x0a;

/** Holds bytes back until their line has ended. @throws (as the stream's error) Error if a line is longer than `maxBytes` */
export class LineBuffer extends Transform {
  private readonly maxBytes: number;
  private begun: Buffer[] = [];
  private length = 0;

  constructor(maxBytes: number) {
    super();
    this.maxBytes = maxBytes;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const end = chunk.lastIndexOf(newline) + 1;
    if (end > 0) {
      this.push(Buffer.concat([...this.begun, chunk.subarray(0, end)]));
      this.begun = [];
      this.length = 0;
    }
    this.begun.push(chunk.subarray(end));
    this.length += chunk.length - end;
    done(this.length > this.maxBytes ? new Error(`a message is longer than ${this.maxBytes} bytes`) : null);
  }
}
