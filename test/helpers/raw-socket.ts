/** Requests as bytes, for what no client would send. */
import { connect } from "node:net";
import { port } from "./abused-server.ts";

/** Sends bytes as they are; what comes back until the connection ends, or for a while. */
export function raw(text: string | Uint8Array, milliseconds = 3000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let received = "";
    const end = () => {
      socket.destroy();
      resolve(received);
    };
    const timer = setTimeout(end, milliseconds);
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      end();
    });
    socket.write(text);
  });
}

export function post(body: string, headers = ""): string {
  const length = Buffer.byteLength(body);
  return `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n${headers}\r\n${body}`;
}
