import { expect, test } from "vitest";
import { rowMeans, Similarity, topIndices } from "../../src/retrieval/similarity.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../src/tensor/float16.ts";
import { Random } from "../../src/tensor/random.ts";

const random = new Random(5);
const normal = (length: number) => Float32Array.from({ length }, () => random.normal());

/** For each image and query, the largest of the products of the image's vectors, by plain arithmetic. */
function plain(images: Float32Array, queries: Float32Array, [count, size]: readonly [number, number]): number[] {
  const dot = (a: number, b: number) => {
    let sum = 0;
    for (let k = 0; k < size; k++) sum += (images[a * size + k] as number) * (queries[b * size + k] as number);
    return sum;
  };
  return Array.from({ length: images.length / (count * size) }, (_, image) =>
    Array.from({ length: queries.length / size }, (_, query) =>
      Math.max(...Array.from({ length: count }, (_, vector) => dot(image * count + vector, query))),
    ),
  ).flat();
}

test.each([
  [1, 7],
  [3, 5],
  // More than go through the engine at once.
  [2, 2 ** 19],
] as const)("%d vectors of %d numbers: float16 and float32", async (...shape) => {
  const images = normal(5 * shape[0] * shape[1]);
  const queries = normal(2 * shape[1]);
  const halves = float32ToFloat16(images);
  for (const [similarity, vectors, rounded] of [
    [new Similarity("float32", shape), images, images],
    [new Similarity("float16", shape), halves, float16ToFloat32(halves)],
  ] as const) {
    const found = await (similarity as Similarity<"float32">).score(vectors as Float32Array, queries);
    const scale = Math.sqrt(shape[1]);
    plain(rounded, queries, shape).forEach((expected, i) => {
      expect((found[i] as number) / scale).toBeCloseTo(expected / scale, 4);
    });
    expect(found).toHaveLength(10);
    expect(
      await (similarity as Similarity<"float32">).score(vectors.subarray(0, 0) as Float32Array, queries),
    ).toHaveLength(0);
    await similarity.close();
  }
});

test("means of rows, and the largest first", () => {
  expect([...rowMeans(Float32Array.of(1, 2, 3, 4, 5, 9), 3)]).toEqual([2, 6]);
  expect(topIndices(Float32Array.of(1, 5, 3, 5), 3)).toEqual([1, 3, 2]);
  expect(topIndices(Float32Array.of(1), 3)).toEqual([0]);
});
