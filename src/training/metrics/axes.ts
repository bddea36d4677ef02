/** Scales of a plot, and the ticks that a reader finds on them. */
import { type ScaleContinuousNumeric, scaleLinear, scaleLog } from "d3-scale";

export type Scale = ScaleContinuousNumeric<number, number>;

export interface Tick {
  /** On the paper, in pixels. */
  readonly at: number;
  readonly label: string;
}

/** Beyond this, the arithmetic of scales would overflow. */
const largest = 1e30;

/** From zero, unless the run began late, to the last step. */
export function stepScale(steps: readonly number[], range: readonly [number, number]): Scale {
  const [low, high] = extent(steps) ?? [0, 1];
  const domain = low === high ? [Math.max(0, low - 1), high + 1] : [low < high / 10 ? 0 : low, high];
  // Among numbers near 2^53, a tick may lie beside its axis.
  return scaleLinear(domain, range).clamp(true);
}

/** Around all values, with round ends. */
export function linearScale(values: readonly number[], range: readonly [number, number], ticks: number): Scale {
  const [low, high] = extent(values) ?? [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high), 1 / largest);
  // Values that are almost equal would need labels of many digits.
  const least = low === high ? (size > 1 / largest ? size / 10 : 1) : size / 1e3;
  const room = Math.max(0, least - (high - low)) / 2;
  return scaleLinear([low - room, high + room], range)
    .nice(ticks)
    .clamp(true);
}

/** Around the values above zero, with a little room at both ends. */
export function logScale(values: readonly number[], range: readonly [number, number]): Scale {
  const [low, high] = extent(values.filter((value) => value > 1 / largest)) ?? [1, 10];
  const room = Math.max((high / low) ** 0.05, 1.02);
  return scaleLog([low / room, high * room], range).clamp(true);
}

/** About `count` round values with their labels; on a logarithmic scale 1, 2, 5 of each decade where all are too many. */
export function ticksOf(scale: Scale, count: number): Tick[] {
  const all = scale.ticks(count);
  if (!isLogarithmic(scale)) return labelled(scale, all);
  const beginWith = (digits: string) => all.filter((value) => digits.includes(value.toExponential().charAt(0)));
  const sparse = [all, beginWith("125"), beginWith("1")];
  return labelled(scale, sparse.find(({ length }) => length <= 1.5 * count) ?? all);
}

/** Ticks at whole steps, as many as have room for their labels in `width` pixels. */
export function stepTicks(scale: Scale, width: number): Tick[] {
  const longest = formatNumber(Math.max(...scale.domain())).length;
  const ticks = scale.ticks(Math.min(9, Math.floor(width / (7 * longest + 40))));
  return labelled(scale, ticks.filter(Number.isInteger));
}

function labelled(scale: Scale, values: readonly number[]): Tick[] {
  const label = numberFormat(values, isLogarithmic(scale));
  return values.map((value) => ({ at: scale(value), label: label(value) }));
}

/** A number of four digits: `3.017`, `12,500`, `2.5e-6`. */
export function formatNumber(value: number): string {
  const short = Number(value.toPrecision(4));
  return usesExponent(Math.abs(short))
    ? short.toExponential()
    : short.toLocaleString("en", { maximumFractionDigits: 9 });
}

/** Values of one axis are written alike: all with an exponent, or, unless decades differ, with the same decimals. */
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

/** Least and greatest value, none beyond `largest`; undefined if there are no values. */
function extent(values: readonly number[]): [number, number] | undefined {
  if (values.length === 0) return undefined;
  let [low, high] = [largest, -largest];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [Math.max(low, -largest), Math.min(high, largest)];
}

// Writes SVG: elements as text, with everything that XML would misread escaped.

type Attributes = Readonly<Record<string, string | number>>;

/** An element; `children` are elements already. Numbers are written with two decimals at most. */
export function element(name: string, attributes: Attributes, ...children: readonly string[]): string {
  const written = Object.entries(attributes).map(
    ([key, value]) => ` ${key}="${escapeXml(typeof value === "number" ? `${+value.toFixed(2)}` : value)}"`,
  );
  return children.length === 0
    ? `<${name}${written.join("")}/>`
    : `<${name}${written.join("")}>${children.join("")}</${name}>`;
}

/** A text element whose baseline begins at (x, y), unless `attributes` say otherwise. */
export function textAt(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element("text", { x, y, ...attributes }, escapeXml(text));
}

/** Text as XML 1.0 can hold it: control characters and halves of characters have no place in it at all. */
function escapeXml(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, "\ufffd").replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** About how wide a text of our sans-serif faces is, in pixels. */
export function textWidth(text: string, fontSize = 12): number {
  return text.length * fontSize * 0.6;
}

/** A text that is cut at its end to fit into `width` pixels. */
export function fitText(text: string, width: number, fontSize = 12): string {
  if (textWidth(text, fontSize) <= width) return text;
  return `${text.slice(0, Math.max(1, Math.floor(width / textWidth("x", fontSize)) - 1))}…`;
}
