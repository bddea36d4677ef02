/** The server's metrics are those of one server, and in the form that Prometheus reads. */
import { expect, test } from "vitest";
import { ServerMetrics } from "../../src/server/metrics.ts";

/** The value of a sample, its labels as they are written. */
async function value(metrics: ServerMetrics, sample: string): Promise<number | undefined> {
  const line = (await metrics.render()).split("\n").find((line) => line.startsWith(`minigpt4_${sample} `));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}

test("counts requests and completions", async () => {
  const metrics = new ServerMetrics();
  metrics.recordRequest("/v1/chat/completions", 200, 0.3);
  metrics.recordRequest("/v1/chat/completions", 200, 3);
  metrics.recordRequest("/v1/chat/completions", 400, 0.001);
  metrics.recordFirstToken({ promptTokens: 40, cachedTokens: 0, seconds: 0.2 });
  metrics.recordFirstToken({ promptTokens: 60, cachedTokens: 40, seconds: 0.1 });
  metrics.recordCompletion({ tokens: 7, reason: "stop" });
  metrics.recordCompletion({ tokens: 5, reason: "cancelled" });
  const expected = {
    'http_requests_total{route="/v1/chat/completions",status="200"}': 2,
    'http_requests_total{route="/v1/chat/completions",status="400"}': 1,
    'http_request_duration_seconds_count{route="/v1/chat/completions"}': 3,
    'http_request_duration_seconds_bucket{le="0.5",route="/v1/chat/completions"}': 2,
    prompt_tokens_total: 100,
    cached_prompt_tokens_total: 40,
    generated_tokens_total: 12,
    'answers_total{reason="stop"}': 1,
    'answers_total{reason="cancelled"}': 1,
    time_to_first_token_seconds_count: 2,
    'time_to_first_token_seconds_bucket{le="0.1"}': 1,
  };
  for (const [sample, count] of Object.entries(expected))
    expect([sample, await value(metrics, sample)]).toEqual([sample, count]);
});

test("gauges are read when the metrics are rendered", async () => {
  const load = { running: 0, waiting: 0 };
  const metrics = new ServerMetrics(() => load);
  expect(await value(metrics, "questions_running")).toBe(0);
  Object.assign(load, { running: 2, waiting: 3 });
  expect(await value(metrics, "questions_running")).toBe(2);
  expect(await value(metrics, "questions_waiting")).toBe(3);
  expect(await value(metrics, "process_resident_memory_bytes")).toBeGreaterThan(1e7);
  expect(await value(metrics, "engine_resident_memory_bytes")).toBeUndefined();
  const engine = { residentBytes: 5e9 };
  const both = new ServerMetrics(() => load, engine);
  engine.residentBytes = 6e9;
  expect(await value(both, "engine_resident_memory_bytes")).toBe(6e9);
});

test("two servers in one process have separate metrics", async () => {
  const [one, other] = [new ServerMetrics(), new ServerMetrics()];
  one.recordCompletion({ tokens: 7, reason: "stop" });
  expect(await value(one, "generated_tokens_total")).toBe(7);
  expect(await value(other, "generated_tokens_total")).toBe(0);
});

test("all lines are valid, and every metric has a unit and help", async () => {
  const metrics = new ServerMetrics();
  metrics.recordRequest('/a"\\\n{route}', 200, 1);
  const lines = (await metrics.render())
    .trimEnd()
    .split("\n")
    .filter((line) => line !== "");
  const sample =
    /^minigpt4_[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? [-+\d.einfEN]+$/;
  for (const line of lines) expect(line).toMatch(line.startsWith("#") ? /^# (HELP|TYPE) minigpt4_/ : sample);
  expect(metrics.contentType).toMatch(/^text\/plain/);
});
