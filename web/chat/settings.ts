/** How answers are searched for, as the user set it. */
import type { GenerationOptions } from "../backend/backend.ts";
import { preference } from "../shell/preferences.ts";

export interface Settings {
  readonly temperature: number;
  readonly topP: number;
  readonly maxNewTokens: number;
  readonly numBeams: number;
  readonly repetitionPenalty: number;
  /** Without one, each answer draws a new one. */
  readonly seed?: number;
  /** Empty: the model's own. */
  readonly system: string;
}

/** Bounds of what can be set; the sliders have them, too. */
export const bounds = {
  temperature: { min: 0, max: 2, step: 0.05 },
  topP: { min: 0.05, max: 1, step: 0.05 },
  maxNewTokens: { min: 10, max: 1000, step: 10 },
  numBeams: { min: 1, max: 10, step: 1 },
  repetitionPenalty: { min: 1, max: 2, step: 0.05 },
} as const;

export type NumberSetting = keyof typeof bounds;

const largestSeed = 2 ** 32 - 1;

/** Temperature 0 takes the likeliest words, which suits descriptions; the longest answer is that of the original demo. */
export const defaults: Settings = {
  temperature: 0,
  topP: 0.9,
  maxNewTokens: 300,
  numBeams: 1,
  repetitionPenalty: 1,
  system: "",
};

export const settings = preference<Settings>("settings", readSettings);

/** Valid settings from what was kept: what is missing or out of bounds is the default. */
export function readSettings(kept: unknown): Settings {
  const values = typeof kept === "object" && kept !== null ? (kept as Record<string, unknown>) : {};
  const read: Record<string, unknown> = { ...defaults };
  for (const [name, { min, max }] of Object.entries(bounds)) {
    const value = values[name];
    if (typeof value === "number" && value >= min && value <= max) read[name] = value;
  }
  if (typeof values.system === "string") read.system = values.system;
  const seed = readSeed(values.seed);
  return { ...(read as unknown as Settings), ...(seed !== undefined && { seed }) };
}

/** A seed from a number or what was typed; undefined if it is none. */
export function readSeed(value: unknown): number | undefined {
  const seed = typeof value === "string" && /^\d+$/.test(value.trim()) ? Number(value) : value;
  return typeof seed === "number" && Number.isInteger(seed) && seed >= 0 && seed <= largestSeed ? seed : undefined;
}

/** Whether answers are drawn at random, so that another one can come of the same question. */
export function draws({ temperature, numBeams }: Settings): boolean {
  return temperature > 0 && numBeams === 1;
}

/** The settings as a model takes them: with beams nothing is drawn, and without a seed one is drawn. */
export function decodingOf(settings: Settings, drawSeed: () => number = randomSeed): GenerationOptions {
  const { maxNewTokens, numBeams, repetitionPenalty, temperature, topP } = settings;
  const always = { maxNewTokens, repetitionPenalty };
  if (numBeams > 1) return { ...always, numBeams };
  if (temperature === 0) return { ...always, temperature };
  return { ...always, temperature, topP, seed: settings.seed ?? drawSeed() };
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
