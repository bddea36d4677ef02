/** A Model Context Protocol server with tools to describe images and to answer questions about them. */
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
  /** Version of this package. */
  readonly version: string;
  /** Folders whose images may be read. @default the working directory and the client's roots */
  readonly allowedFolders?: readonly string[];
  /** @default the process's working directory */
  readonly workingDirectory?: string;
}

/** Connection to the client of a tool call. */
type Client = RequestHandlerExtra<ServerRequest, ServerNotification>;

/** Milliseconds. A client that offers roots but does not list them in time is treated as one without roots. */
const rootsTimeout = 5000;

const instructions = `Describes images and answers questions about them with a small vision-language model that runs on this \
computer; images are not sent anywhere. Its answers can be wrong. Pass images as file paths or as base64 data.`;

const generationSchema = {
  max_new_tokens: z
    .int()
    .min(1)
    .max(100_000)
    .optional()
    .describe("Maximum length of the answer in tokens; default 300"),
  temperature: z
    .number()
    .min(0)
    .max(10)
    .optional()
    .describe("0, the default, is greedy decoding; higher values give more varied answers"),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional()
    .describe("Seed of the sampling, for reproducible answers"),
};

const finishReason = z.enum(["stop", "length"]).describe('"length" if the answer was cut off at max_new_tokens');

/** The tools change nothing and contact nobody. */
const annotations: ToolAnnotations = { readOnlyHint: true, openWorldHint: false };

/**
 * Creates a server; connect it to a transport.
 *
 * @param openEngine called by every tool call, so that the client's `initialize` does not wait for the model; must return the
 * same engine each time. The caller closes it
 *
 * @example
 * ```ts
 * const engine = loadOnce();
 * await createMcpServer(() => engine, { version: "1.0.0" }).connect(new StdioServerTransport());
 * ```
 */
export function createMcpServer(openEngine: () => Promise<Engine>, options: McpOptions): McpServer {
  const server = new McpServer({ name: "minigpt4", title: "MiniGPT-4", version: options.version }, { instructions });
  const { workingDirectory = process.cwd() } = options;

  async function resolveImages(inputs: readonly z.infer<typeof imageSchema>[], client: Client): Promise<ImageInput[]> {
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
      description: "Describes what an image shows.",
      inputSchema: z.strictObject({ image: imageSchema, ...generationSchema }),
      outputSchema: { description: z.string(), finish_reason: finishReason },
      annotations,
    },
    async ({ image, ...generation }, client) => {
      const images = await resolveImages([image], client);
      const request: GenerationRequest = { turns: "describe", images, ...toOptions(generation) };
      const { text, reason } = await generate(openEngine, request, client);
      return toResult(text, { description: text, finish_reason: reason });
    },
  );

  server.registerTool(
    "ask_about_image",
    {
      title: "Ask about an image",
      description:
        "Answers a question about one or more images, optionally as a follow-up in a conversation about them.",
      inputSchema: z.strictObject({
        question: z.string().regex(/\S/, "The question is empty"),
        images: z.array(imageSchema).min(1).max(16).describe("Shown before the first question, in this order"),
        earlier_turns: z
          .array(z.object({ question: z.string(), answer: z.string() }))
          .optional()
          .describe("The conversation about these images so far, oldest first"),
        ...generationSchema,
      }),
      outputSchema: { answer: z.string(), finish_reason: finishReason },
      annotations,
    },
    async ({ question, images: inputs, earlier_turns = [], ...generation }, client) => {
      const images = await resolveImages(inputs, client);
      const turns = toTurns(earlier_turns, question, images.length);
      const { text, reason } = await generate(openEngine, { turns, images, ...toOptions(generation) }, client);
      return toResult(text, { answer: text, finish_reason: reason });
    },
  );
  return server;
}

/** Requests the client's roots. Not cached, since they may change and the request is fast. */
async function clientFolders(server: McpServer, { signal }: Client): Promise<string[]> {
  if (!server.server.getClientCapabilities()?.roots) return [];
  const { roots } = await server.server
    .listRoots(undefined, { signal, timeout: rootsTimeout })
    .catch(() => ({ roots: [] }));
  return parseRoots(roots);
}

function toOptions(input: {
  max_new_tokens?: number;
  temperature?: number;
  seed?: number;
}): Partial<GenerationRequest> {
  const { max_new_tokens: maxNewTokens, temperature = 0, seed } = input;
  return { maxNewTokens, temperature, seed, overflow: "refuse" };
}

function toTurns(
  earlier: readonly { readonly question: string; readonly answer: string }[],
  question: string,
  images: number,
): Turn[] {
  const questions = [...earlier.map((turn) => turn.question), question];
  return questions.flatMap((text, i): Turn[] => {
    const user: Turn = { role: "user", text, images: i === 0 ? images : 0 };
    const answer = earlier[i]?.answer;
    return answer === undefined ? [user] : [user, { role: "assistant", text: answer }];
  });
}

/** Generates the whole answer. Clients that request progress receive the text so far. */
async function generate(openEngine: () => Promise<Engine>, request: GenerationRequest, client: Client) {
  let progress = 0;
  const sendProgress = async (message: string) => {
    const progressToken = client._meta?.progressToken;
    if (progressToken === undefined) return;
    const params = { progressToken, progress: progress++, message };
    await client.sendNotification({ method: "notifications/progress", params });
  };
  await sendProgress("Loading the model");
  const engine = await openEngine();
  client.signal.throwIfAborted();
  let text = "";
  let reason: z.infer<typeof finishReason> = "stop";
  for await (const event of engine.generate(request, client.signal)) {
    if (event.kind === "end") reason = event.reason;
    if (event.kind !== "text") continue;
    text += event.text;
    await sendProgress(text.trim());
  }
  return { text: text.trim(), reason };
}

/** Structured content, and the text for clients that do not support it. */
function toResult(text: string, structuredContent: Record<string, unknown>): CallToolResult {
  return { content: [{ type: "text", text }], structuredContent };
}

const newline = 0x0a;

/**
 * Buffers a byte stream into whole lines, so that the message reader behind it does not search long lines again with every chunk.
 * Fails with an error if a line is longer than `maxBytes`.
 */
export class LineBuffer extends Transform {
  private readonly maxBytes: number;
  private pending: Buffer[] = [];
  private length = 0;

  constructor(maxBytes: number) {
    super();
    this.maxBytes = maxBytes;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const end = chunk.lastIndexOf(newline) + 1;
    if (end > 0) {
      this.push(Buffer.concat([...this.pending, chunk.subarray(0, end)]));
      this.pending = [];
      this.length = 0;
    }
    this.pending.push(chunk.subarray(end));
    this.length += chunk.length - end;
    done(this.length > this.maxBytes ? new Error(`The message is longer than ${this.maxBytes} bytes.`) : null);
  }
}
