/** `--project`, which every step has. */
import { Option } from "commander";

export interface ProjectFlags {
  readonly project: string;
}

export function projectOption(): Option {
  return new Option("--project <file>", "the project").default("curation.db");
}
