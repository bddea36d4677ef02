/** The generation settings of the user. */
import type { GenerationOptions } from "../backend/backend.ts";
import { preference } from "../shell/store.ts";

export interface Settings {
  readonly temperature: number;
  readonly topP: number;
  readonly maxNewTokens: number;
  readonly numBeams: number;
  readonly repetitionPenalty: number;
  /** @default a random one for each answer */
  readonly seed?: number;
  /** The system prompt; if empty, the model's own. */
  readonly system: string;
}

/** The ranges of the sliders. */
export const bounds = {
  temperature: { min: 0, max: 2, step: 0.05 },
  topP: { min: 0.05, max: 1, step: 0.05 },
  maxNewTokens: { min: 10, max: 1000, step: 10 },
  numBeams: { min: 1, max: 10, step: 1 },
  repetitionPenalty: { min: 1, max: 2, step: 0.05 },
} as const;

export type NumberSetting = keyof typeof bounds;

const maxSeed = 2 ** 32 - 1;

/** Greedy decoding suits descriptions; the maximum length is that of MiniGPT-4's original demo. */
export const defaults: Settings = {
  temperature: 0,
  topP: 0.9,
  maxNewTokens: 300,
  numBeams: 1,
  repetitionPenalty: 1,
  system: "",
};

export const settings = preference<Settings>("settings", readSettings);

/** Parses stored settings; missing and invalid values become the defaults. */
export function readSettings(stored: unknown): Settings {
  const values = typeof stored === "object" && stored !== null ? (stored as Record<string, unknown>) : {};
  const read: Record<string, unknown> = { ...defaults };
  for (const [name, { min, max }] of Object.entries(bounds)) {
    const value = values[name];
    if (typeof value === "number" && value >= min && value <= max) read[name] = value;
  }
  if (typeof values.system === "string") read.system = values.system;
  const seed = readSeed(values.seed);
  return { ...(read as unknown as Settings), seed };
}

/** Parses a seed from a number or an input; undefined if it is invalid. */
export function readSeed(value: unknown): number | undefined {
  const seed = typeof value === "string" && /^\d+$/.test(value.trim()) ? Number(value) : value;
  return typeof seed === "number" && Number.isInteger(seed) && seed >= 0 && seed <= maxSeed ? seed : undefined;
}

/** Whether answers are sampled, so that regenerating can give a different one. */
export function isSampling({ temperature, numBeams }: Settings): boolean {
  return temperature > 0 && numBeams === 1;
}

/** The options of a request. Beam search and temperature 0 do not sample; sampling without a seed uses a random one. */
export function generationOptions(settings: Settings, createSeed: () => number = randomSeed): GenerationOptions {
  const { maxNewTokens, numBeams, repetitionPenalty, temperature, topP } = settings;
  const common = { maxNewTokens, repetitionPenalty };
  if (numBeams > 1) return { ...common, numBeams };
  if (temperature === 0) return { ...common, temperature };
  return { ...common, temperature, topP, seed: settings.seed ?? createSeed() };
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
