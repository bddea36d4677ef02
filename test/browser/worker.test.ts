/** The page's side of a model in a worker; a real worker runs in the system tests. */
import { expect, test, vi } from "vitest";
import { connectModel, type ModelWorker } from "../../src/browser/index.ts";

const url = "https://example.com/models/tiny/";
const ready = {
  kind: "ready",
  model: { name: "tiny", contextLength: 64, tokensPerImage: 4 },
  placement: { device: "wasm", threads: 2 },
};

/** A worker whose messages and errors the test sends. */
class FakeWorker extends EventTarget {
  readonly postMessage = vi.fn();
  readonly terminate = vi.fn();

  send(data: unknown): void {
    this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }

  crash(message: string): void {
    this.dispatchEvent(Object.assign(new Event("error"), { message }));
  }
}

const asWorker = (worker: FakeWorker) => worker as unknown as ModelWorker;

test("loads the model in the worker, with its progress, and describes an image there", async () => {
  const worker = new FakeWorker();
  const onProgress = vi.fn();
  const loading = connectModel(asWorker(worker), url, { onProgress });
  expect(worker.postMessage).toHaveBeenCalledWith({ kind: "load", url });
  worker.send({ kind: "progress", progress: { received: 1, total: 2 } });
  worker.send(ready);
  const model = await loading;
  expect(onProgress).toHaveBeenCalledExactlyOnceWith({ received: 1, total: 2 });
  expect(model).toMatchObject({ model: ready.model, device: "wasm", threads: 2 });

  const description = model.describe(new Blob([Uint8Array.of(1, 2, 3)]), { maxNewTokens: 8 });
  await vi.waitFor(() => expect(worker.postMessage).toHaveBeenCalledTimes(2));
  const { id, method, args } = worker.postMessage.mock.lastCall?.[0] ?? {};
  expect({ method, args }).toEqual({
    method: "generate",
    args: { turns: "describe", images: [Uint8Array.of(1, 2, 3)], maxNewTokens: 8 },
  });
  worker.send({ kind: "value", id, value: { kind: "text", choice: 0, text: " A cat. " } });
  worker.send({ kind: "done", id });
  expect(await description).toBe("A cat.");

  await model.close();
  expect(worker.terminate).toHaveBeenCalledOnce();
  await expect(model.chat().answer("Hello")).rejects.toMatchObject({ code: "model_closed" });
});

test("a model that cannot be loaded is an error with the reason, and ends the worker", async () => {
  const worker = new FakeWorker();
  const onError = vi.fn();
  const loading = connectModel(asWorker(worker), url, { onError });
  worker.send({ kind: "unable", message: "weights-0.bin is missing" });
  await expect(loading).rejects.toThrow("weights-0.bin is missing");
  expect(worker.terminate).toHaveBeenCalledOnce();
  expect(onError).not.toHaveBeenCalled();
});

test("if the worker crashes, running and later requests fail with the reason", async () => {
  const worker = new FakeWorker();
  const onError = vi.fn();
  const loading = connectModel(asWorker(worker), url, { onError });
  worker.send(ready);
  const model = await loading;
  const running = model.describe(Uint8Array.of(1));
  const rejection = expect(running).rejects.toThrow("out of memory");
  await vi.waitFor(() => expect(worker.postMessage).toHaveBeenCalledTimes(2));
  worker.crash("out of memory");
  await rejection;
  await expect(model.describe(Uint8Array.of(1))).rejects.toThrow("out of memory");
  expect(worker.terminate).toHaveBeenCalledOnce();
  expect(onError).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ message: "out of memory" }));
});
