/**
 * An endpoint that describes the image in a request's body: `npx tsx examples/http-endpoint.ts 8000`, then
 * `curl --data-binary @cat.jpg http://127.0.0.1:8000`. `minigpt4 serve` is the server to put before others.
 */
import { createServer } from "node:http";
import { MiniGPT4, RequestError } from "minigpt4";

const [port = "8000", name = "nano"] = process.argv.slice(2);
const mostBytes = 10_000_000;

const model = await MiniGPT4.load(name);
const server = createServer(async (request, response) => {
  // Who hangs up is not answered any more.
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const reply = (status: number, body: object) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  try {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of request) {
      size += chunk.length;
      if (size > mostBytes) return reply(413, { error: `An image may have ${mostBytes} bytes` });
      chunks.push(chunk);
    }
    reply(200, { description: await model.describe(Buffer.concat(chunks), { signal: gone.signal }) });
  } catch (error) {
    if (error instanceof RequestError) reply(422, { error: error.message });
    else if (!gone.signal.aborted) reply(500, { error: "The image could not be described" });
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log("Listening on", server.address()));
process.once("SIGINT", () => {
  server.close(() => model.close());
  server.closeAllConnections();
});
