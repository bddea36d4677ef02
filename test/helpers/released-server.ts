/** Google's storage and the Hugging Face hub on this machine, with the golden files in the place of the released ones. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { golden } from "./golden-import.ts";
import { serverAnswering } from "./pull-server.ts";

const storage = "/sfr-vision-language-research/LAVIS/models/BLIP2";

/** The files of each repository, and of the storage's folder. */
type Contents = Record<string, Map<string, Buffer>>;

export interface ReleasedServer {
  readonly options: { readonly hubUrl: string; readonly storageUrl: string };
  readonly contents: Contents;
  /** What was asked for: method, path and range. */
  readonly asked: string[];
  readonly requests: IncomingMessage[];
  /** Answers a request itself if it returns true. */
  intervene: (request: IncomingMessage, response: ServerResponse) => boolean;
}

export async function releasedServer(): Promise<ReleasedServer> {
  const contents: Contents = {
    storage: new Map([
      ["eva_vit_g.pth", readFileSync(golden("eva_vit.pth"))],
      ["blip2_pretrained_flant5xxl.pth", readFileSync(golden("blip2_qformer.pth"))],
    ]),
    "spaces/Vision-CAIR/minigpt4": new Map([
      ["prerained_minigpt4_7b.pth", readFileSync(golden("minigpt4.pth"))],
      ["app.py", Buffer.from("print()")],
    ]),
    "Vision-CAIR/vicuna-7b": new Map(
      [...readdirSync(golden("llama-bin"))].map((name) => [name, readFileSync(join(golden("llama-bin"), name))]),
    ),
  };
  contents["Vision-CAIR/vicuna-7b"]?.set("README.md", Buffer.from("# Vicuna"));
  const server = await serverAnswering((request, response) => {
    const { method, headers } = request;
    const path = decodeURIComponent(new URL(request.url ?? "", "http://server").pathname);
    self.asked.push(`${method} ${path}${headers.range ? ` ${headers.range}` : ""}`);
    if (self.intervene(request, response)) return;
    const listed = /^\/api\/(models|spaces)\/(.+)\/tree\/main$/.exec(path);
    if (listed) return list(response, contents[listed[1] === "spaces" ? `spaces/${listed[2]}` : `${listed[2]}`]);
    const [, repo = "", name = ""] = /^\/(.+)\/resolve\/main\/([^/]+)$/.exec(path) ?? [];
    const file = contents[repo]?.get(name);
    if (file) return send(response, file, headers.range);
    const stored = path.startsWith(`${storage}/`) && contents.storage?.get(path.slice(storage.length + 1));
    if (stored) return send(response, stored, headers.range, `crc32c=AAAAAA==,md5=${hash("md5", stored, "base64")}`);
    response.writeHead(404).end("there is nothing here");
  });
  const self: ReleasedServer = {
    options: { hubUrl: server.hubUrl, storageUrl: server.hubUrl },
    contents,
    asked: [],
    requests: server.requests as IncomingMessage[],
    intervene: () => false,
  };
  return self;
}

/** As the hub lists a folder: large files by the SHA-256 of their LFS record, small ones by git's name of their content. */
function list(response: ServerResponse, files: Contents[string] | undefined): void {
  if (!files) return void response.writeHead(404, { "content-type": "application/json" }).end('{"error":"not found"}');
  const entries = [...files].map(([path, content]) => ({
    type: "file",
    path,
    size: content.length,
    oid: hash("sha1", Buffer.concat([Buffer.from(`blob ${content.length}\0`), content]), "hex"),
    ...(/\.(bin|pth|model|safetensors)$/.test(path) && {
      oid: hash("sha1", Buffer.from("pointer"), "hex"),
      lfs: { oid: hash("sha256", content, "hex"), size: content.length, pointerSize: 130 },
    }),
  }));
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify([{ type: "directory", path: "figs", size: 0, oid: "0" }, ...entries]));
}

function send(response: ServerResponse, content: Buffer, range: string | undefined, hashes?: string): void {
  const begin = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  response.writeHead(range ? 206 : 200, {
    "content-length": content.length - begin,
    ...(range && { "content-range": `bytes ${begin}-${content.length - 1}/${content.length}` }),
    ...(hashes && { "x-goog-hash": hashes }),
  });
  response.end(content.subarray(begin));
}

function hash(algorithm: string, content: Buffer, encoding: "hex" | "base64"): string {
  return createHash(algorithm).update(content).digest(encoding);
}
