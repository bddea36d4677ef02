/** Scales and ticks of a plot, and SVG elements. */
import { type ScaleContinuousNumeric, scaleLinear, scaleLog } from "d3-scale";

export type Scale = ScaleContinuousNumeric<number, number>;

export interface Tick {
  /** Position in pixels. */
  readonly at: number;
  readonly label: string;
}

/** Larger values would overflow in the scales. */
const largest = 1e30;

/** From zero, unless the run starts late, to the last step. */
export function stepScale(steps: readonly number[], range: readonly [number, number]): Scale {
  const [low, high] = extent(steps) ?? [0, 1];
  const domain = low === high ? [Math.max(0, low - 1), high + 1] : [low < high / 10 ? 0 : low, high];
  // Near 2^53, a tick may otherwise lie next to its axis.
  return scaleLinear(domain, range).clamp(true);
}

/** A range around all values, with round ends. */
export function linearScale(values: readonly number[], range: readonly [number, number], ticks: number): Scale {
  const [low, high] = extent(values) ?? [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high), 1 / largest);
  // Almost equal values would need labels with many digits.
  const least = low === high ? (size > 1 / largest ? size / 10 : 1) : size / 1e3;
  const room = Math.max(0, least - (high - low)) / 2;
  return scaleLinear([low - room, high + room], range)
    .nice(ticks)
    .clamp(true);
}

/** A range around the positive values, with some room at both ends. */
export function logScale(values: readonly number[], range: readonly [number, number]): Scale {
  const [low, high] = extent(values.filter((value) => value > 1 / largest)) ?? [1, 10];
  const room = Math.max((high / low) ** 0.05, 1.02);
  return scaleLog([low / room, high * room], range).clamp(true);
}

/** About `count` round values with labels; on a logarithmic scale only 1, 2, 5 of each decade if there are too many. */
export function createTicks(scale: Scale, count: number): Tick[] {
  const all = scale.ticks(count);
  if (!isLogarithmic(scale)) return labelled(scale, all);
  const beginWith = (digits: string) => all.filter((value) => digits.includes(value.toExponential().charAt(0)));
  const sparse = [all, beginWith("125"), beginWith("1")];
  return labelled(scale, sparse.find(({ length }) => length <= 1.5 * count) ?? all);
}

/** Ticks at whole steps, as many as fit with their labels into `width` pixels. */
export function stepTicks(scale: Scale, width: number): Tick[] {
  const longest = formatNumber(Math.max(...scale.domain())).length;
  const ticks = scale.ticks(Math.min(9, Math.floor(width / (7 * longest + 40))));
  return labelled(scale, ticks.filter(Number.isInteger));
}

function labelled(scale: Scale, values: readonly number[]): Tick[] {
  const label = numberFormat(values, isLogarithmic(scale));
  return values.map((value) => ({ at: scale(value), label: label(value) }));
}

/** Formats a number with four digits: `3.017`, `12,500`, `2.5e-6`. */
export function formatNumber(value: number): string {
  const short = Number(value.toPrecision(4));
  return usesExponent(Math.abs(short))
    ? short.toExponential()
    : short.toLocaleString("en", { maximumFractionDigits: 9 });
}

/** Formats the values of one axis alike: all with an exponent or, unless decades differ, with the same decimals. */
function numberFormat(values: readonly number[], decades: boolean): (value: number) => string {
  const exact = (value: number) => Number(value.toPrecision(12));
  if (usesExponent(Math.max(...values.map(Math.abs)))) {
    return (value) => (value === 0 ? "0" : exact(value).toExponential());
  }
  const most = Math.max(0, ...values.map((value) => `${exact(value)}`.split(".")[1]?.length ?? 0));
  const decimals = { minimumFractionDigits: decades ? 0 : most, maximumFractionDigits: most };
  return (value) => exact(value).toLocaleString("en", decimals);
}

function isLogarithmic(scale: Scale): boolean {
  return "base" in scale;
}

function usesExponent(size: number): boolean {
  return size >= 1e7 || (size > 0 && size < 1e-2);
}

/** Smallest and largest value, bounded by `largest`; undefined if there are no values. */
function extent(values: readonly number[]): [number, number] | undefined {
  if (values.length === 0) return undefined;
  let [low, high] = [largest, -largest];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [Math.max(low, -largest), Math.min(high, largest)];
}

type Attributes = Readonly<Record<string, string | number>>;

/** An SVG element with escaped attributes. Numbers get at most two decimals. @param children elements, not text */
export function element(name: string, attributes: Attributes, ...children: readonly string[]): string {
  const written = Object.entries(attributes).map(
    ([key, value]) => ` ${key}="${escapeXml(typeof value === "number" ? `${+value.toFixed(2)}` : value)}"`,
  );
  return children.length === 0
    ? `<${name}${written.join("")}/>`
    : `<${name}${written.join("")}>${children.join("")}</${name}>`;
}

/** A text element whose baseline starts at (x, y) by default. */
export function textAt(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element("text", { x, y, ...attributes }, escapeXml(text));
}

/** Escapes text for XML 1.0, which allows neither control characters nor lone surrogates. */
function escapeXml(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, "\ufffd").replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** Approximate width of a text in pixels. */
export function textWidth(text: string, fontSize = 12): number {
  return text.length * fontSize * 0.6;
}

/** Truncates a text to `width` pixels. */
export function fitText(text: string, width: number, fontSize = 12): string {
  if (textWidth(text, fontSize) <= width) return text;
  return `${text.slice(0, Math.max(1, Math.floor(width / textWidth("x", fontSize)) - 1))}…`;
}
