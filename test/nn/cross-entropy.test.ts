import fc from "fast-check";
import { expect, test } from "vitest";
import { crossEntropy } from "../../src/nn/layers.ts";
import { Session } from "../../src/runtime/session.ts";
import { ndarray } from "../../src/tensor/array.ts";
import { gradients } from "../../src/tensor/grad/gradients.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { reduceSum } from "../../src/tensor/ops/reduce.ts";

const classes = 5;
const smoothing = 0.1;

/** By the definition: the target distribution against the logarithm of the softmax, in double precision. */
function byHand(logits: readonly number[], target: number) {
  const exponentials = logits.map((logit) => Math.exp(logit));
  const sum = exponentials.reduce((a, b) => a + b);
  const wanted = logits.map((_, i) => smoothing / classes + (i === target ? 1 - smoothing : 0));
  return {
    loss: -wanted.reduce((total, share, i) => total + share * Math.log((exponentials[i] as number) / sum), 0),
    gradient: exponentials.map((value, i) => value / sum - (wanted[i] as number)),
  };
}

test("loss per row and its gradient, with label smoothing", async () => {
  const graph = new Graph();
  const logits = graph.input("logits", "float32", ["rows", classes]);
  const losses = crossEntropy(logits, graph.input("targets", "int64", ["rows", 1]), smoothing);
  const [gradient] = gradients(reduceSum(losses, [0, 1], { keep: false }), [logits]);
  const session = await Session.create(graph, { losses, gradient: gradient ?? losses });
  const row = fc.tuple(
    fc.array(fc.double({ min: -8, max: 8, noNaN: true }), { minLength: classes, maxLength: classes }),
    fc.nat(classes - 1),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 4 }), async (rows) => {
      const found = await session.run({
        logits: ndarray("float32", [rows.length, classes], Float32Array.from(rows.flatMap(([values]) => values))),
        targets: ndarray(
          "int64",
          [rows.length, 1],
          BigInt64Array.from(rows, ([, target]) => BigInt(target)),
        ),
      });
      rows.forEach(([values, target], i) => {
        const expected = byHand([...Float32Array.from(values)], target);
        expect(found.losses.data[i]).toBeCloseTo(expected.loss, 4);
        expected.gradient.forEach((value, j) => {
          expect(found.gradient.data[i * classes + j]).toBeCloseTo(value, 5);
        });
      });
    }),
    { numRuns: 30 },
  );
  await session.close();
});
