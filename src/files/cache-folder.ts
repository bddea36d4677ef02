/** The folder for downloaded models and other files that can be downloaded or computed again. */
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

/**
 * The user's cache folder for this package: `MINIGPT4_CACHE` if set; else `minigpt4` in `XDG_CACHE_HOME` or
 * `~/.cache`, in `~/Library/Caches` on macOS, in `%LOCALAPPDATA%` on Windows. It may not exist yet.
 */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env, platform = process.platform): string {
  if (env.MINIGPT4_CACHE) return resolve(env.MINIGPT4_CACHE);
  return join(userCaches(env, platform), "minigpt4");
}

function userCaches(env: NodeJS.ProcessEnv, platform: NodeJS.Platform): string {
  if (platform === "win32") return env.LOCALAPPDATA || join(homedir(), "AppData", "Local");
  // The XDG base directory specification says to ignore a relative path.
  if (env.XDG_CACHE_HOME && isAbsolute(env.XDG_CACHE_HOME)) return env.XDG_CACHE_HOME;
  return platform === "darwin" ? join(homedir(), "Library", "Caches") : join(homedir(), ".cache");
}
