/**
 * An endpoint that describes the image in a request's body: `npx tsx examples/http-endpoint.ts 8000`, then
 * `curl --data-binary @cat.jpg http://127.0.0.1:8000`. For a complete server, use `minigpt4 serve` or `minigpt4/server`.
 */
import { createServer } from "node:http";
import { MiniGPT4, RequestError } from "minigpt4";

const [port = "8000", name = "nano"] = process.argv.slice(2);
const maxBytes = 10_000_000;

const model = await MiniGPT4.load(name);
const server = createServer(async (request, response) => {
  // Cancel the generation if the client disconnects.
  const disconnected = new AbortController();
  response.once("close", () => disconnected.abort());
  const reply = (status: number, body: object) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  try {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of request) {
      size += chunk.length;
      if (size > maxBytes) return reply(413, { error: `The image is larger than ${maxBytes} bytes` });
      chunks.push(chunk);
    }
    reply(200, { description: await model.describe(Buffer.concat(chunks), { signal: disconnected.signal }) });
  } catch (error) {
    if (error instanceof RequestError) reply(422, { error: error.message });
    else if (!disconnected.signal.aborted) reply(500, { error: "The image could not be described" });
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log("Listening on", server.address()));
process.once("SIGINT", () => {
  server.close(() => model.close());
  server.closeAllConnections();
});
