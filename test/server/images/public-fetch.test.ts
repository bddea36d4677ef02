/** A client that names a URL gets images of the public internet, and no way into the networks around the server. */
import type { IncomingMessage } from "node:http";
import { connect, createServer } from "node:net";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { ImageRejectedError } from "../../../src/server/errors.ts";
import { type FetchPolicy, fetchPublic, isPublicAddress } from "../../../src/server/images/public-fetch.ts";
import { listening } from "../../helpers/loopback.ts";

const image = Buffer.from("not really an image");
const seen: IncomingMessage[] = [];
const port = await listening((request, response) => {
  seen.push(request);
  const send = (type: string, body: Uint8Array | string = image, more = {}) =>
    response.writeHead(200, { "content-type": type, ...more }).end(body);
  const redirect = (location: string, status = 302) => response.writeHead(status, { location }).end("elsewhere");
  const url = new URL(request.url ?? "", "http://images.test");
  switch (url.pathname) {
    case "/image.png":
      return send("image/png");
    case "/binary":
      return send("application/octet-stream");
    case "/page.html":
      return send("text/html", "<secrets>");
    case "/untyped":
      return response.end(image);
    case "/packed":
      return send("image/png", gzipSync(Buffer.alloc(50_000_000)), { "content-encoding": "gzip" });
    case "/declared":
      return send("image/png", Buffer.alloc(2000));
    case "/endless": {
      response.writeHead(200, { "content-type": "image/png" });
      const more = (): void => void (response.writable && response.write(Buffer.alloc(65_536), more));
      return more();
    }
    case "/slow": {
      response.writeHead(200, { "content-type": "image/png" });
      const timer = setInterval(() => response.write("."), 20);
      return void response.on("close", () => clearInterval(timer));
    }
    case "/silent":
      return;
    case "/broken":
      response.writeHead(200, { "content-type": "image/png", "content-length": 1000 });
      return response.write("half", () => response.destroy());
    case "/headers":
      return send("image/png", image, { "x-much": "x".repeat(20_000) });
    case "/to":
      return redirect(url.searchParams.get("url") ?? "", Number(url.searchParams.get("status") ?? 302));
    case "/hops": {
      const left = Number(url.searchParams.get("left"));
      return left === 0 ? send("image/png") : redirect(`/hops?left=${left - 1}`);
    }
    default:
      return response.writeHead(404).end();
  }
});

/** The name stands for the server of this test, and that server's address and port are allowed. */
const resolve = async (name: string) => (name === "images.test" ? ["127.0.0.1"] : []);
const policy: FetchPolicy = { maxBytes: 1000, timeout: 5000, resolve, allow: [{ address: "127.0.0.1", port }] };
const at = (path: string) => `http://images.test:${port}${path}`;
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => "fetched",
    (error) => (error instanceof ImageRejectedError ? error.code : error),
  );

test("downloads an image from an allowed endpoint without identifying headers", async () => {
  expect(Buffer.from(await fetchPublic(at("/image.png"), policy))).toEqual(image);
  expect(Buffer.from(await fetchPublic(at("/binary"), policy))).toEqual(image);
  const { headers, method } = seen.at(-1) ?? {};
  expect(method).toBe("GET");
  expect(Object.keys(headers ?? {}).sort()).toEqual(["accept", "accept-encoding", "connection", "host", "user-agent"]);
});

test("the same host is rejected by default, without a connection", async () => {
  const before = seen.length;
  const { allow, ...byDefault } = policy;
  expect(allow).toHaveLength(1);
  expect(await code(fetchPublic(at("/image.png"), byDefault))).toBe("invalid_image_url");
  expect(await code(fetchPublic("http://images.test/image.png", byDefault))).toBe("invalid_image_url");
  const otherPort = { ...policy, allow: [{ address: "127.0.0.1", port: port + 1 }] };
  expect(await code(fetchPublic(at("/image.png"), otherPort))).toBe("invalid_image_url");
  expect(seen.length).toBe(before);
});

/** Each leads to this machine, its networks, its cloud, or nowhere; ports that are not the scheme's own too. */
const hostile = `
http://127.0.0.1/ http://127.1/ http://127.0.1/ http://127.255.255.254/ http://2130706433/ http://0x7f000001/ http://0x7f.1/
http://0177.0.0.1/ http://017700000001/ http://0x7f.0x0.0x0.0x1/ http://127.0.0.1./ http://0/ http://0.0.0.0/ http://0.1.2.3/
http://%31%32%37.0.0.1/ http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ http://localhost/ http://localhost./ http://LOCALHOST/
http://a.localhost/ http://10.0.0.1/ http://10.255.255.255/ http://172.16.0.1/ http://172.31.255.255/ http://192.168.1.1/
http://3232235777/ http://169.254.169.254/latest/meta-data/ http://2852039166/ http://0xA9FEA9FE/ http://169.254.170.2/
http://100.64.0.1/ http://100.100.100.200/ http://100.127.255.255/ http://192.0.0.192/ http://192.0.2.1/ http://198.18.0.1/
http://198.51.100.1/ http://203.0.113.1/ http://192.88.99.1/ http://224.0.0.1/ http://239.255.255.250/ http://240.0.0.1/
http://255.255.255.255/ http://168.63.129.16/ http://[::]/ http://[::1]/ http://[0:0:0:0:0:0:0:1]/ http://[::ffff:127.0.0.1]/
http://[::ffff:7f00:1]/ http://[::ffff:8.8.8.8]/ http://[::127.0.0.1]/ http://[::8.8.8.8]/ http://[::ffff:0:127.0.0.1]/
http://[64:ff9b::127.0.0.1]/ http://[64:ff9b::8.8.8.8]/ http://[64:ff9b:1::a00:1]/ http://[2002:7f00:1::]/ http://[2002:808:808::]/
http://[2001:0:7f00:1::]/ http://[2001::1]/ http://[2001:db8::1]/ http://[3fff::1]/ http://[fe80::1]/ http://[fec0::1]/ http://[fc00::1]/
http://[fd00:ec2::254]/ http://[ff02::1]/ http://[100::1]/ http://[4000::1]/ http://[5f00::1]/ http://[fe80::1%25eth0]/
http://user@8.8.8.8/ http://user:word@8.8.8.8/ http://:word@8.8.8.8/ http://8.8.8.8@127.0.0.1/ http://8.8.8.8:22/ http://8.8.8.8:443/
https://8.8.8.8:80/ http://8.8.8.8:6379/ http://8.8.8.8:0/ http://8.8.8.8:65536/ http:/127.0.0.1/
http:127.0.0.1/ http:///127.0.0.1/ http://127.0.0.1\t/ http://256.256.256.256/ http://1.2.3.4.5/ http:// http://a..b/ http://-/
file:///etc/passwd FILE:/etc/passwd ftp://8.8.8.8/ gopher://127.0.0.1:6379/_INFO blob:http://8.8.8.8/1 javascript:1 ws://8.8.8.8/
data:image/png,x about:blank //8.8.8.8/ /etc/passwd C:\\Windows\\win.ini \\\\8.8.8.8\\share
`
  .trim()
  .split(/[ \n]+/);

/** As a resolver does that knows this machine's own names, and no others. */
const local = async (name: string) => (/(^|\.)localhost\.?$/.test(name) ? ["::1", "127.0.0.1"] : []);

test.each(hostile)("%s is rejected", async (url) => {
  expect(await code(fetchPublic(url, { maxBytes: 1000, timeout: 300, resolve: local }))).toBe("invalid_image_url");
});

describe("names", () => {
  test.each([
    ["loopback", ["127.0.0.1"]],
    ["one public and one private address", ["8.8.8.8", "10.0.0.1"]],
    ["one private and one public address", ["10.0.0.1", "8.8.8.8"]],
    ["a link-local address with a zone", ["fe80::1%eth0"]],
    ["a mapped address", ["::ffff:127.0.0.1"]],
    ["no address", []],
    ["what is no address", ["localhost"]],
  ])("that stand for %s are refused", async (_, addresses) => {
    const resolve = async () => addresses;
    expect(await code(fetchPublic("http://name.test/", { ...policy, resolve }))).toBe("invalid_image_url");
  });

  test("are resolved once: a second, different answer is not used for the connection", async () => {
    let asked = 0;
    const resolve = async () => (asked++ === 0 ? ["127.0.0.1"] : ["10.255.255.1"]);
    expect(Buffer.from(await fetchPublic(at("/image.png"), { ...policy, resolve }))).toEqual(image);
    expect(asked).toBe(1);
  });

  test("are resolved again for a redirect, and rejected if they have become private", async () => {
    let asked = 0;
    const resolve = async () => (asked++ === 0 ? ["127.0.0.1"] : ["10.255.255.1"]);
    expect(await code(fetchPublic(at(`/to?url=/image.png`), { ...policy, resolve }))).toBe("invalid_image_url");
    expect(asked).toBe(2);
  });

  test("that do not exist and private names give the same error", async () => {
    const message = (addresses: string[]) =>
      fetchPublic("http://name.test/", { ...policy, resolve: async () => addresses }).catch((error) => error.message);
    expect(await message([])).toBe(await message(["10.0.0.1"]));
  });

  test("whose resolver hangs or fails are subject to the timeout", async () => {
    const never = () => new Promise<never>(() => {});
    const begin = performance.now();
    expect(await code(fetchPublic(at("/"), { ...policy, resolve: never, timeout: 100 }))).toBe(
      "failed_to_download_image",
    );
    expect(performance.now() - begin).toBeLessThan(4000);
    const failing = () => Promise.reject(new Error("SERVFAIL at 10.0.0.53"));
    const error = await fetchPublic(at("/"), { ...policy, resolve: failing }).catch((error) => error);
    expect(error.message).not.toContain("10.0.0.53");
  });
});

describe("redirects", () => {
  test.each([301, 302, 303, 307, 308])("with status %i are followed", async (status) => {
    expect(await code(fetchPublic(at(`/to?status=${status}&url=/image.png`), policy))).toBe("fetched");
  });

  test.each([
    "http://127.0.0.1/",
    "http://169.254.169.254/latest/",
    "//10.0.0.1/",
    "http://[::1]/",
    "http://user:word@images.test/",
    "file:///etc/passwd",
    "data:image/png,x",
    "gopher://images.test/",
  ])("to %s are refused", async (url) => {
    expect(await code(fetchPublic(at(`/to?url=${encodeURIComponent(url)}`), policy))).toBe("invalid_image_url");
  });

  test("are limited to three", async () => {
    expect(await code(fetchPublic(at("/hops?left=3"), policy))).toBe("fetched");
    expect(await code(fetchPublic(at("/hops?left=4"), policy))).toBe("failed_to_download_image");
    expect(await code(fetchPublic(at("/to?status=304&url=/image.png"), policy))).toBe("failed_to_download_image");
  });
});

describe("what a server sends", () => {
  test.each([
    ["/page.html", "failed_to_download_image"],
    ["/untyped", "failed_to_download_image"],
    ["/missing", "failed_to_download_image"],
    ["/packed", "failed_to_download_image"],
    ["/broken", "failed_to_download_image"],
    ["/headers", "failed_to_download_image"],
    ["/declared", "image_too_large"],
    ["/endless", "image_too_large"],
  ])("%s is refused as %s", async (path, expected) => {
    expect(await code(fetchPublic(at(path), policy))).toBe(expected);
  });

  test.each(["/slow", "/silent"])("%s is not waited for longer than the time in total", async (path) => {
    const begin = performance.now();
    expect(await code(fetchPublic(at(path), { ...policy, timeout: 200 }))).toBe("failed_to_download_image");
    expect(performance.now() - begin).toBeLessThan(4000);
  });

  test("that is not HTTP, or a closed port, is rejected without details of the machine", async () => {
    const garbage = createServer((socket) =>
      socket
        .on("error", () => {})
        .resume()
        .end("SSH-2.0-OpenSSH\r\n"),
    );
    await new Promise<void>((resolve) => garbage.listen(0, "127.0.0.1", resolve));
    const { port } = garbage.address() as { port: number };
    const allow = [{ address: "127.0.0.1", port }];
    const ask = (scheme: string) =>
      fetchPublic(`${scheme}://images.test:${port}/`, { ...policy, allow }).catch((error) => error);
    for (const scheme of ["http", "https"]) {
      const error = await ask(scheme);
      expect(error.code).toBe("failed_to_download_image");
      expect(error.message).not.toMatch(/127|SSH|ECONN/);
    }
    await new Promise((resolve) => garbage.close(resolve));
    expect((await ask("http")).code).toBe("failed_to_download_image");
  });
});

test("an abort rejects with its reason and closes the connection", async () => {
  const leaving = new AbortController();
  const asking = fetchPublic(at("/silent"), policy, leaving.signal);
  setTimeout(() => leaving.abort(new Error("gone")), 50);
  await expect(asking).rejects.toThrow("gone");
  const socket = seen.at(-1)?.socket;
  await expect.poll(() => socket?.destroyed).toBe(true);
  await expect(fetchPublic(at("/image.png"), policy, leaving.signal)).rejects.toThrow("gone");
});

test("a proxy of the environment is not used", async () => {
  const proxied: string[] = [];
  const proxy = await listening((request, response) => {
    proxied.push(request.url ?? "");
    response.end();
  });
  Object.assign(process.env, { http_proxy: `http://127.0.0.1:${proxy}`, NODE_USE_ENV_PROXY: "1" });
  afterAll(() => {
    delete process.env.http_proxy;
    delete process.env.NODE_USE_ENV_PROXY;
  });
  expect(await code(fetchPublic(at("/image.png"), policy))).toBe("fetched");
  expect(proxied).toEqual([]);
});

describe("public addresses", () => {
  test.each(["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e"])(
    "%s is one",
    (address) => expect(isPublicAddress(address)).toBe(true),
  );

  test("exclude IPv4 addresses embedded in IPv6, and invalid text does not throw", () => {
    const prefixes = ["::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::"];
    fc.assert(fc.property(fc.ipV4(), fc.constantFrom(...prefixes), (v4, prefix) => !isPublicAddress(prefix + v4)));
    fc.assert(fc.property(fc.oneof(fc.string(), fc.ipV6()), (text) => typeof isPublicAddress(text) === "boolean"));
  });
});

test("the test server is reachable, so rejections come from the policy", async () => {
  const socket = connect(port, "127.0.0.1");
  await new Promise<void>((resolve) => socket.on("connect", resolve));
  socket.destroy();
});
