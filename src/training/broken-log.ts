/** `broken.jsonl` in a run's folder: each broken sample once, however often the run is gone on with. */
import { appendFile, readFile } from "node:fs/promises";
import type { Problem } from "../data/dataset.ts";

/** Notes one more problem. What cannot be noted is only told: no run ends for it. */
type Note = (problem: Problem) => void;

/** @param onMessage is told if the file cannot be written */
export async function openBrokenLog(path: string, onMessage: (message: string) => void = () => {}): Promise<Note> {
  const text = await readFile(path, "utf8").catch(() => "");
  const lines = text.split("\n");
  const noted = new Set(lines.map(nameOf));
  // Behind a line that a killed process left half-written.
  let before = lines.at(-1) === "" ? "" : "\n";
  let writing = Promise.resolve();
  return (problem) => {
    if (noted.has(problem.name)) return;
    noted.add(problem.name);
    const line = `${before}${JSON.stringify(problem)}\n`;
    before = "";
    writing = writing
      .then(() => appendFile(path, line))
      .catch((error: Error) => onMessage(`Broken samples cannot be noted: ${error.message}`));
  };
}

function nameOf(line: string): unknown {
  try {
    return JSON.parse(line).name;
  } catch {
    return undefined;
  }
}
