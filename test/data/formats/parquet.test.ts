import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ColumnSource, parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, describe, expect, test } from "vitest";
import { openDataset } from "../../../src/data/formats/open.ts";
import { type ParquetFilter, readParquet } from "../../../src/data/formats/parquet.ts";
import { tarOf } from "../../helpers/tar-bytes.ts";

const folder = await mkdtemp(join(tmpdir(), "filter-"));
afterAll(() => rm(folder, { recursive: true }));

const keys = ["000", "001", "002", "003", "004"];

/** A table as written by img2dataset: a row for each requested image, of which 003 failed to download. */
const columns: ColumnSource[] = [
  { name: "key", data: [...keys, "005"], type: "STRING" },
  {
    name: "status",
    data: ["success", "success", "success", "failed_to_download", "success", "success"],
    type: "STRING",
  },
  { name: "width", data: [100, 200, 300, null, 500, 600], type: "INT32", nullable: true },
  { name: "pixels", data: [1n, 2n, 3n, null, 5n, 6n], type: "INT64", nullable: true },
  { name: "similarity", data: [0.5, 0.25, null, 0.125, Number.NaN, 0.1], type: "DOUBLE", nullable: true },
  { name: "watermark", data: [true, false, false, null, false, true], type: "BOOLEAN", nullable: true },
];

const tar = join(folder, "00000.tar");
await writeFile(
  tar,
  await tarOf(
    keys
      .filter((key) => key !== "003")
      .flatMap((key) => [
        { name: `${key}.jpg`, body: key },
        { name: `${key}.txt`, body: key },
      ]),
  ),
);
await writeFile(join(folder, "00000.parquet"), Buffer.from(parquetWriteBuffer({ columnData: columns })));

async function kept(filter: ParquetFilter): Promise<string[]> {
  const { parts } = await openDataset(tar, { filter });
  const contents = await parts[0]?.read();
  expect(contents?.invalid).toEqual([]);
  return contents?.pairs.flatMap((pair) => pair.texts) ?? [];
}

describe("parquet filter", () => {
  test.each<[ParquetFilter, string[]]>([
    [{}, ["000", "001", "002", "004"]],
    [{ width: { min: 200 } }, ["001", "002", "004"]],
    [{ width: { min: 200, max: 300 } }, ["001", "002"]],
    [{ pixels: { max: 2 } }, ["000", "001"]],
    [{ pixels: { equals: 5 } }, ["004"]],
    [{ similarity: { min: 0.25 } }, ["000", "001"]],
    [{ status: { equals: "success" }, watermark: { equals: false } }, ["001", "002", "004"]],
    [{ status: { equals: "failed_to_download" } }, []],
  ])("%j keeps %j", async (filter, expected) => {
    expect(await kept(filter)).toEqual(expected);
  });

  test("an unknown column is an error that lists the columns", async () => {
    await expect(kept({ height: { min: 1 } })).rejects.toThrow(
      /00000\.parquet has no column "height"; its columns are "key", "status", "width", "pixels", "similarity"/,
    );
  });

  test("conditions that do not fit a column's type are errors", async () => {
    await expect(kept({ status: { min: 1 } })).rejects.toThrow(
      /00000\.parquet: column "status" holds "success" \(string\), but min and max need numbers/,
    );
    await expect(kept({ width: { equals: "200" } })).rejects.toThrow(
      /column "width" holds "100" \(number\), but .*"200"/,
    );
  });

  test("reports a shard without a parquet file and a sample without a row", async () => {
    const path = join(folder, "more");
    await mkdir(path);
    const members = [
      { name: "000.jpg", body: "p" },
      { name: "000.txt", body: "t" },
      { name: "999.jpg", body: "p" },
      { name: "999.txt", body: "t" },
    ];
    await writeFile(join(path, "0.tar"), await tarOf(members));
    await writeFile(join(path, "1.tar"), await tarOf(members));
    await writeFile(join(path, "0.parquet"), Buffer.from(parquetWriteBuffer({ columnData: columns })));
    const filter = { width: { min: 1 } };
    await expect(openDataset(path, { filter })).rejects.toThrow(
      /^1 of 2 files do not exist: .*1\.parquet \(the filter needs/,
    );
    const { parts } = await openDataset(join(path, "0.tar"), { filter });
    const contents = await parts[0]?.read();
    expect(contents?.pairs).toHaveLength(1);
    expect(contents?.invalid).toEqual([
      { name: `${join(path, "0.tar")}/999`, reason: `has no row in ${join(path, "0.parquet")}` },
    ]);
  });

  test("a corrupted parquet file is an error that names it", async () => {
    const whole = Buffer.from(parquetWriteBuffer({ columnData: columns }));
    const path = join(folder, "damaged.tar");
    await writeFile(path, await tarOf([{ name: "000.jpg", body: "p" }]));
    for (const cut of [0, 7, 100, whole.length - 200, whole.length - 1]) {
      await writeFile(join(folder, "damaged.parquet"), whole.subarray(0, cut));
      await expect(openDataset(path, { filter: { width: { min: 1 } } })).rejects.toThrow(/damaged\.parquet/);
    }
  });

  test("stops reading a page on which the reader would loop forever", async () => {
    const bytes = Buffer.from(parquetWriteBuffer({ columnData: columns }));
    const path = join(folder, "endless.parquet");
    // In the header of the first page: the type of its third field.
    bytes[11] = 0;
    await writeFile(path, bytes);
    await expect(readParquet(path, ["key"], 500)).rejects.toThrow(/endless\.parquet: took more than 0\.5 s/);
  });
});
