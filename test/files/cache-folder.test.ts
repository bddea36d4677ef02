import { homedir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { cacheFolder } from "../../src/files/cache-folder.ts";

test("each system's folder for caches, unless the user chose another", () => {
  expect(cacheFolder({}, "linux")).toBe(join(homedir(), ".cache", "minigpt4"));
  expect(cacheFolder({}, "darwin")).toBe(join(homedir(), "Library", "Caches", "minigpt4"));
  expect(cacheFolder({ LOCALAPPDATA: "/local" }, "win32")).toBe(join("/local", "minigpt4"));
  expect(cacheFolder({ XDG_CACHE_HOME: "/xdg" }, "linux")).toBe(join("/xdg", "minigpt4"));
  expect(cacheFolder({ XDG_CACHE_HOME: "relative" }, "linux")).toBe(join(homedir(), ".cache", "minigpt4"));
  expect(cacheFolder({ MINIGPT4_CACHE: "/mine", XDG_CACHE_HOME: "/xdg" }, "linux")).toBe("/mine");
});
