import fc from "fast-check";
import { expect, test } from "vitest";
import { OpenAiError } from "../../src/server/errors.ts";
import { type ReleaseSlot, RequestQueue } from "../../src/server/request-queue.ts";

const never = new AbortController().signal;

/** Lets questions in, one after the other; the names of the clients in the order of their turns. */
async function order(admission: RequestQueue, clients: readonly string[]): Promise<string[]> {
  const served: string[] = [];
  const hold = await admission.acquire("first", never);
  const all = clients.map(async (client) => {
    const leave = await admission.acquire(client, never);
    served.push(client);
    leave();
  });
  hold();
  await Promise.all(all);
  return served;
}

test("serves clients round-robin", async () => {
  const admission = new RequestQueue({ maxConcurrent: 1, maxQueue: 10 });
  expect(await order(admission, ["a", "a", "a", "b", "c", "b"])).toEqual(["a", "b", "c", "a", "b", "a"]);
  expect([admission.running, admission.waiting]).toEqual([0, 0]);
});

test("rejects requests beyond the queue, with retry-after", async () => {
  const admission = new RequestQueue({ maxConcurrent: 1, maxQueue: 1 });
  const leave = await admission.acquire("a", never);
  const waiting = admission.acquire("a", never);
  const refused = await admission.acquire("a", never).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(OpenAiError);
  const { status, headers } = (refused as OpenAiError).getResponse();
  expect(status).toBe(429);
  expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  leave();
  (await waiting)();
});

test("a queue filled by one client makes room for another", async () => {
  const admission = new RequestQueue({ maxConcurrent: 1, maxQueue: 3 });
  const leave = await admission.acquire("a", never);
  const own = [1, 2, 3].map(() => admission.acquire("a", never));
  const other = admission.acquire("b", never);
  await expect(own[2]).rejects.toMatchObject({ status: 429 });
  // b has one question waiting now, a two: nobody has clearly more, so that b's next is refused.
  await expect(admission.acquire("b", never)).rejects.toMatchObject({ status: 429 });
  leave();
  for (const entered of [own[0], other, own[1]]) (await entered)?.();
  expect([admission.running, admission.waiting]).toEqual([0, 0]);
});

test("an aborted request leaves the queue", async () => {
  const admission = new RequestQueue({ maxConcurrent: 1, maxQueue: 2 });
  const leave = await admission.acquire("a", never);
  const controller = new AbortController();
  const gone = admission.acquire("b", controller.signal);
  const stays = admission.acquire("c", never);
  controller.abort(new Error("gone"));
  await expect(gone).rejects.toThrow("gone");
  expect(admission.waiting).toBe(1);
  leave();
  (await stays)();
  await expect(admission.acquire("b", controller.signal)).rejects.toThrow("gone");
  expect(admission.running).toBe(0);
});

test("releasing a slot twice frees it once", async () => {
  const admission = new RequestQueue({ maxConcurrent: 2, maxQueue: 0 });
  const leave = await admission.acquire("a", never);
  await admission.acquire("a", never);
  leave();
  leave();
  expect(admission.running).toBe(1);
});

test("bounds hold and no request is lost for any sequence of operations", async () => {
  const action = fc.record({
    kind: fc.constantFrom("enter", "leave", "abort"),
    client: fc.constantFrom("a", "b", "c"),
    which: fc.nat(20),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
      const admission = new RequestQueue({ maxConcurrent: 2, maxQueue: 4 });
      const inside: ReleaseSlot[] = [];
      const waiting = new Set<AbortController>();
      for (const { kind, client, which } of actions) {
        if (kind === "enter") {
          const controller = new AbortController();
          waiting.add(controller);
          void admission
            .acquire(client, controller.signal)
            .then((leave) => inside.push(leave))
            .catch(() => {})
            .finally(() => waiting.delete(controller));
        }
        if (kind === "leave") inside.splice(which % Math.max(inside.length, 1), 1)[0]?.();
        if (kind === "abort") [...waiting][which % Math.max(waiting.size, 1)]?.abort(new Error("gone"));
        await new Promise((resolve) => setImmediate(resolve));
        expect(admission.running).toBe(inside.length);
        expect(admission.waiting).toBe(waiting.size);
        expect(admission.running).toBeLessThanOrEqual(2);
        expect(admission.waiting).toBeLessThanOrEqual(4);
        if (admission.waiting > 0) expect(admission.running).toBe(2);
      }
    }),
    { numRuns: 50 },
  );
});
