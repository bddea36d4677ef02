/**
 * The Python package index: finds the address of a file by the "simple" protocol (PEP 503 and PEP 691) at the index that the
 * user has configured for pip or uv. No Python is needed.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { parseJson, validate } from "../files/json.ts";
import { Connection, explainFailure } from "./download.ts";

const defaultIndex = "https://pypi.org/simple";
const jsonType = "application/vnd.pypi.simple.v1+json";
/** JSON is preferred; older indexes only have HTML. */
const accept = `${jsonType}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1`;

export interface PackageFile {
  /** Name of the package, as on its index. */
  readonly package: string;
  /** Name of the file, for example of a wheel. */
  readonly file: string;
  /** Expected digest, in hexadecimal. */
  readonly sha256: string;
}

export interface PackageUrl {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface IndexOptions {
  readonly signal?: AbortSignal;
  /** @default the indexes of `packageIndexes()` */
  readonly indexes?: readonly string[];
}

/**
 * Finds where a file of a package can be downloaded. Credentials in the address of an index are sent to the server of that
 * index only, and are in no message.
 * @throws Error naming each index, without its credentials, and why it cannot be used
 */
export async function locatePackageFile(file: PackageFile, { signal, indexes }: IndexOptions): Promise<PackageUrl> {
  const failures: string[] = [];
  for (const index of indexes ?? (await packageIndexes())) {
    try {
      return await locateAt(index, file, signal);
    } catch (error) {
      signal?.throwIfAborted();
      failures.push(`${withoutCredentials(index)}: ${explainFailure(error)}`);
    }
  }
  throw new Error(failures.join("; ") || "no package index is configured (PIP_NO_INDEX is set)");
}

async function locateAt(index: string, wanted: PackageFile, signal: AbortSignal | undefined): Promise<PackageUrl> {
  const { url: base, headers } = separateCredentials(index);
  const name = wanted.package.toLowerCase().replace(/[-_.]+/g, "-");
  const page = new URL(`${base.pathname.replace(/\/*$/, "")}/${name}/`, base);
  const found = (await listFiles(page, headers, signal)).find(({ filename }) => filename === wanted.file);
  if (!found) throw new Error(`has no ${wanted.file}`);
  const published = found.hashes.sha256;
  if (published !== undefined && published !== wanted.sha256) {
    throw new Error(`the SHA-256 of ${wanted.file} should be ${wanted.sha256}, but the index says ${published}`);
  }
  const { url, headers: own } = separateCredentials(new URL(found.url, page).href);
  return { url: url.href, headers: url.origin === base.origin ? { ...headers, ...own } : own };
}

const listSchema = z.object({
  files: z.array(z.object({ filename: z.string(), url: z.string(), hashes: z.record(z.string(), z.string()) })),
});
type IndexedFile = z.infer<typeof listSchema>["files"][number];

/** Pages of packages with thousands of releases have some MB. */
const maxPage = 2 ** 26;

async function listFiles(
  page: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<readonly IndexedFile[]> {
  const connection = new Connection(signal, { acceptHtml: true });
  try {
    const response = await connection.fetch(page, { headers: { ...headers, Accept: accept } });
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body ? connection.chunks(response.body) : []) {
      bytes += chunk.length;
      if (bytes > maxPage) throw new Error(`its list of files has more than ${maxPage} bytes`);
      chunks.push(chunk);
    }
    const content = Buffer.concat(chunks);
    const isJson = response.headers.get("content-type")?.startsWith(jsonType);
    return isJson ? validate(parseJson(content), listSchema).files : parseHtml(content.toString("utf8"));
  } finally {
    connection.close();
  }
}

/** PEP 503: `<a href="URL#sha256=HEX">FILE NAME</a>`. */
function parseHtml(html: string): IndexedFile[] {
  return [...html.matchAll(/<a\b[^>]*\bhref\s*=\s*["']([^"']+)["'][^>]*>([^<]*)<\/a>/gi)].map(
    ([, href = "", name = ""]) => {
      const [url = "", fragment = ""] = href.replaceAll("&amp;", "&").split("#");
      const [, sha256] = /(?:^|&)sha256=([0-9a-f]{64})/i.exec(fragment) ?? [];
      const hashes: Record<string, string> = sha256 ? { sha256: sha256.toLowerCase() } : {};
      return { filename: name.trim(), url, hashes };
    },
  );
}

/** `fetch` refuses addresses with credentials; they become a header. */
function separateCredentials(address: string): { url: URL; headers: Readonly<Record<string, string>> } {
  const url = parseUrl(address);
  const [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
  url.username = "";
  url.password = "";
  if (user === "" && password === "") return { url, headers: {} };
  return { url, headers: { Authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}` } };
}

function parseUrl(address: string): URL {
  // The error of the constructor quotes the address.
  if (!URL.canParse(address)) throw new Error("is not a valid URL");
  return new URL(address);
}

function withoutCredentials(address: string): string {
  return URL.canParse(address) ? separateCredentials(address).url.href : "the configured package index";
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The indexes that the user has configured, in the order in which they are tried: `PIP_INDEX_URL`, `UV_DEFAULT_INDEX` or
 * `UV_INDEX_URL`, else pip's configuration files, else pypi.org; then extra indexes. Empty if `PIP_NO_INDEX` is set.
 */
export async function packageIndexes(env: Environment = process.env, platform = process.platform): Promise<string[]> {
  const config = await pipConfig(env, platform);
  const setting = (name: string) => env[`PIP_${name.toUpperCase().replaceAll("-", "_")}`] || config.get(name);
  if (/^(1|true|yes|on|y|t)$/i.test(setting("no-index") ?? "")) return [];
  const main = env.PIP_INDEX_URL || env.UV_DEFAULT_INDEX || env.UV_INDEX_URL || config.get("index-url") || defaultIndex;
  const extra = setting("extra-index-url")?.split(/\s+/).filter(Boolean) ?? [];
  return [...new Set([main, ...extra])];
}

/** The `[global]` and `[download]` settings of pip's configuration files; later files win. */
async function pipConfig(env: Environment, platform: NodeJS.Platform): Promise<Map<string, string>> {
  const settings = new Map<string, string>();
  for (const path of pipConfigFiles(env, platform).filter((path) => existsSync(path))) {
    let section = "";
    let key = "";
    for (const line of (await readFile(path, "utf8").catch(() => "")).split(/\r?\n/)) {
      if (/^\s*([#;]|$)/.test(line)) continue;
      const [, header] = /^\[(.+)\]\s*$/.exec(line) ?? [];
      const [, name, value = ""] = /^([\w-]+)\s*[=:]\s*(.*?)\s*$/.exec(line) ?? [];
      if (header !== undefined) section = header;
      else if (section !== "global" && section !== "download") continue;
      else if (name !== undefined) {
        key = name.toLowerCase().replaceAll("_", "-");
        settings.set(key, value);
      } else if (/^\s/.test(line)) settings.set(key, `${settings.get(key) ?? ""} ${line.trim()}`.trim());
    }
  }
  return settings;
}

/** Where pip looks for its configuration: system, user, virtual environment, and a file of one's own, the least important first. */
function pipConfigFiles(env: Environment, platform: NodeJS.Platform): string[] {
  const own = env.PIP_CONFIG_FILE;
  // pip's way to turn all configuration files off.
  if (own === "/dev/null" || own?.toLowerCase() === "nul") return [];
  const home = homedir();
  const name = platform === "win32" ? "pip.ini" : "pip.conf";
  const library = "Library/Application Support/pip";
  const system =
    platform === "win32"
      ? [join(env.PROGRAMDATA || "C:\\ProgramData", "pip", name)]
      : platform === "darwin"
        ? [`/${library}/${name}`]
        : [`/etc/xdg/pip/${name}`, `/etc/${name}`];
  const user =
    platform === "win32"
      ? [join(home, "pip", name), join(env.APPDATA || join(home, "AppData", "Roaming"), "pip", name)]
      : [
          join(home, ".pip", name),
          join(env.XDG_CONFIG_HOME || join(home, ".config"), "pip", name),
          ...(platform === "darwin" ? [join(home, library, name)] : []),
        ];
  const environment = env.VIRTUAL_ENV ? [join(env.VIRTUAL_ENV, name)] : [];
  return [...system, ...user, ...environment, ...(own ? [own] : [])];
}
