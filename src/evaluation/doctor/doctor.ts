/** Diagnoses a model folder, even one that cannot be loaded. */
import { deltaMessage, isUnmergedDelta } from "../../convert/delta.ts";
import type { Checkpoint } from "../../formats/open.ts";
import type { PullOptions } from "../../hub/pull.ts";
import type { ImageSources } from "../../models/minigpt4.ts";
import { modelConfig, projectionMismatch } from "../../models/model-folder.ts";
import { usedByImages, usedByLlama } from "../../models/used-tensors.ts";
import type { SessionOptions } from "../../runtime/session.ts";
import {
  type Check,
  checkDescription,
  checkFiles,
  checkImages,
  checkLanguage,
  checkTokenizer,
  checkValues,
  type Description,
  type Finding,
  Findings,
  type LlmParts,
  openImageFiles,
  openLlmParts,
  type UsedPart,
} from "./checks.ts";

export interface DoctorOptions extends SessionOptions {
  /** Checks to skip. */
  readonly skip?: readonly Check[];
  /** How a language model given by name is downloaded. */
  readonly pull?: PullOptions;
  readonly signal?: AbortSignal;
  /** Progress of a check, in bytes or (`language`) in layers. */
  readonly onProgress?: (check: Check, done: number, total: number) => void;
}

export interface Diagnosis {
  readonly path: string;
  /** Whether there are no faults. */
  readonly healthy: boolean;
  /** Checks that ran. */
  readonly checked: readonly Check[];
  readonly findings: readonly Finding[];
  /** Perplexity of the language model on plain English. */
  readonly perplexity?: number;
}

/** Runs all checks that are possible. Problems of the folder are findings, never errors. @throws the signal's reason if it is aborted */
export async function diagnose(path: string, options: DoctorOptions = {}): Promise<Diagnosis> {
  const { skip = [], pull, signal, onProgress, ...session } = options;
  const findings = new Findings();
  const checked: Check[] = [];
  const open: Checkpoint[] = [];
  const starts = (check: Check) => {
    signal?.throwIfAborted();
    if (skip.includes(check)) return false;
    checked.push(check);
    return true;
  };
  let perplexity: number | undefined;
  try {
    starts("config");
    const description = await checkDescription(findings, path);
    if (description) {
      const images = await openImageFiles(findings, path, description);
      const llm = await openLlmParts(findings, path, description, { ...pull, signal });
      open.push(...images.values(), ...(llm.checkpoint ? [llm.checkpoint] : []));
      const sources = imageSources(description, images);
      if (starts("files")) {
        await checkFiles(findings, path, (done, total) => onProgress?.("files", done, total), signal);
      }
      const used = starts("dimensions") ? await checkDimensions(findings, description, sources, llm) : [];
      if (starts("values")) {
        const bytes = open
          .flatMap(({ tensors }) => [...tensors.values()])
          .reduce((sum, info) => sum + info.byteLength, 0);
        let read = 0;
        const onBytes = (count: number) => {
          read += count;
          onProgress?.("values", read, bytes);
        };
        await checkValues(findings, used, onBytes, signal);
      }
      const { checkpoint, config, tokenizer } = llm;
      if (checkpoint && starts("delta") && (await isUnmergedDelta(checkpoint)))
        findings.fault("delta", deltaMessage(llm.path));
      if (tokenizer && config && starts("tokenizer")) {
        checkTokenizer(findings, tokenizer, config, description.prompt_template, llm.json);
      }
      const fits = (check: Check) =>
        !findings.all.some((finding) => finding.kind === "fault" && finding.check === check);
      // A model with mismatched dimensions cannot run.
      if (fits("dimensions")) {
        if (checkpoint && config && tokenizer && starts("language")) {
          const progress = (done: number, total: number) => onProgress?.("language", done, total);
          perplexity = await findings.attempt("language", () =>
            checkLanguage(findings, { checkpoint, config, tokenizer }, { ...session, signal, onProgress: progress }),
          );
        }
        if (sources && config && starts("images")) {
          await findings.attempt("images", () =>
            checkImages(findings, { path, config: modelConfig(description, config), imageSources: sources }, session),
          );
        }
      }
    }
  } finally {
    for (const checkpoint of open) await checkpoint.close();
  }
  signal?.throwIfAborted();
  const healthy = !findings.all.some(({ kind }) => kind === "fault");
  return { path, healthy, checked, findings: findings.all, perplexity };
}

/** Undefined if one of the files could not be opened. */
function imageSources({ weights }: Description, open: ReadonlyMap<string, Checkpoint>) {
  const { encoder, projection, qformer = encoder } = weights;
  const [first, second, third] = [encoder, qformer, projection].map((name) => open.get(name));
  return first && second && third ? { encoder: first, qformer: second, projection: third } : undefined;
}

/** Checks shapes and missing tensors, and notes unused ones. @returns the tensors that are used of each file */
async function checkDimensions(
  findings: Findings,
  description: Description,
  sources: Record<keyof ImageSources, Checkpoint> | undefined,
  { path, checkpoint, config }: LlmParts,
): Promise<UsedPart[]> {
  const used: UsedPart[] = [];
  if (!config) return used;
  if (checkpoint) {
    const names = await findings.attempt(
      "dimensions",
      () => usedByLlama(checkpoint, config),
      "The language model's config.json belongs to another model, or its files are incomplete. Download them again.",
    );
    if (names) used.push({ checkpoint, names });
  }
  if (sources) {
    const { shape } = sources.projection.tensors.get("llama_proj.weight") ?? {};
    const [to = 0, from = 0] = shape ?? [];
    if (shape && to !== config.hiddenSize) {
      findings.fault(
        "dimensions",
        projectionMismatch({ path: sources.projection.path, to, from }, { path, width: config.hiddenSize }),
        "Use the projection that was trained for this language model (7B and 13B have one each), or the matching language model.",
      );
    } else {
      const names = await findings.attempt(
        "dimensions",
        () => usedByImages(sources, modelConfig(description, config)),
        "The dimensions in config.json, or a file, belong to another model. minigpt4 import reads the dimensions from the files.",
      );
      for (const part of ["encoder", "qformer", "projection"] as const) {
        if (names) used.push({ checkpoint: sources[part], names: names[part] });
      }
    }
  }
  noteUnused(findings, used);
  return used;
}

function noteUnused(findings: Findings, used: readonly UsedPart[]): void {
  for (const checkpoint of new Set(used.map((part) => part.checkpoint))) {
    const names = new Set(used.filter((part) => part.checkpoint === checkpoint).flatMap((part) => [...part.names]));
    const unused = [...checkpoint.tensors.keys()].filter((name) => !names.has(name));
    if (unused.length === 0) continue;
    const some = unused.slice(0, 3).join(", ");
    findings.note(
      "dimensions",
      `${checkpoint.path}: ${unused.length} of ${checkpoint.tensors.size} tensors are not used (${some}${unused.length > 3 ? ", ..." : ""})`,
    );
  }
}
