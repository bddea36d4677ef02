/** A line to a server that can become slow, and be cut: a fast server would have sent its whole answer before the browser has read a word of it. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { onTestFinished } from "vitest";

const [slowBytes, everyMilliseconds] = [400, 50];

export interface SlowLine {
  readonly url: string;
  /** From now on, 8 kB a second come from the server. */
  slowDown(): void;
  /** Whoever is connected is cut off; who connects anew reaches the server again, if it is there. */
  cut(): void;
}

/** Opens a line to a port of this machine, until the test has ended. */
export async function slowLine(port: number): Promise<SlowLine> {
  const sockets = new Set<Socket>();
  let bytesAtOnce = Number.POSITIVE_INFINITY;
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    const waiting: Buffer[] = [];
    const timer = setInterval(() => {
      const [first, ...rest] = waiting;
      if (!first) return;
      client.write(first.subarray(0, bytesAtOnce));
      waiting.splice(0, waiting.length, ...(first.length > bytesAtOnce ? [first.subarray(bytesAtOnce)] : []), ...rest);
    }, everyMilliseconds);
    const end = () => {
      clearInterval(timer);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", end).on("close", () => sockets.delete(socket));
    }
    client.on("close", end);
    client.pipe(upstream, { end: false });
    upstream.on("data", (data: Buffer) => waiting.push(data));
    // What the server has sent is still on its way when it closes.
    upstream.on("close", () => waiting.length === 0 && end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  onTestFinished(() => {
    cut();
    server.close();
  });
  const slowDown = () => {
    bytesAtOnce = slowBytes;
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, slowDown, cut };
}
