/** The environment that an engine's process is started with. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { withLargePages } from "../../src/runtime/environment.ts";
import { isMissing } from "../helpers/capabilities.ts";

describe("withLargePages", () => {
  test("keeps other variables and tunables", () => {
    expect(withLargePages({ HOME: "/root" })).toEqual({ HOME: "/root", GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" });
    expect(withLargePages({ GLIBC_TUNABLES: "glibc.malloc.check=1" })).toEqual({
      GLIBC_TUNABLES: "glibc.malloc.check=1:glibc.malloc.hugetlb=1",
    });
  });

  test("keeps the setting of the user", () => {
    const chosen = { GLIBC_TUNABLES: "glibc.malloc.hugetlb=0" };
    expect(withLargePages(chosen)).toBe(chosen);
  });

  const setting = "/sys/kernel/mm/transparent_hugepage/enabled";
  const isAsked = existsSync(setting) && readFileSync(setting, "utf8").includes("[madvise]");
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  test.skipIf(isMissing("large-pages", isAsked && Boolean(header?.glibcVersionRuntime)))(
    "gives a process's large arrays large pages",
    () => {
      const script = `const a = new Float32Array(2 ** 26).fill(1);
      console.log(/AnonHugePages: +(\\d+)/.exec(require("fs").readFileSync("/proc/self/smaps_rollup", "utf8"))[1]);`;
      const hugeKilobytes = (env: NodeJS.ProcessEnv) =>
        Number(spawnSync(process.execPath, ["-e", script], { env, encoding: "utf8" }).stdout);
      const { GLIBC_TUNABLES: _, ...plain } = process.env;
      expect(hugeKilobytes(withLargePages(plain))).toBeGreaterThan(hugeKilobytes(plain) + 100_000);
    },
  );
});
