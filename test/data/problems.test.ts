import { expect, test } from "vitest";
import type { Problem } from "../../src/data/dataset.ts";
import { ProblemReport } from "../../src/data/dataset.ts";

function reportOf(broken: number, largestShare: number): ProblemReport {
  const report = new ProblemReport(largestShare);
  for (let i = 0; i < broken; i++) report.add({ name: `image ${i}`, reason: `reason ${i}` });
  return report;
}

test("each broken sample is told and counted once", () => {
  const told: Problem[] = [];
  const report = new ProblemReport(0.1, (problem) => told.push(problem));
  report.add({ name: "a", reason: "is empty" });
  report.add({ name: "b", reason: "is no image" });
  report.add({ name: "a", reason: "is empty, still" });
  expect(report.count).toBe(2);
  expect(told).toEqual([
    { name: "a", reason: "is empty" },
    { name: "b", reason: "is no image" },
  ]);
});

test("a few may be broken whatever their share, and of many samples the share may", () => {
  expect(() => reportOf(20, 0).check(20)).not.toThrow();
  expect(() => reportOf(21, 0).check(1_000_000)).toThrow("21 samples are broken");
  expect(() => reportOf(50, 0.05).check(1000)).not.toThrow();
  expect(() => reportOf(51, 0.05).check(1000)).toThrow(
    "51 samples are broken, of 1000 that were read; more than 5% (run.max_broken) ends the run. The first are\n" +
      "  image 0: reason 0\n  image 1: reason 1\n  image 2: reason 2",
  );
});
