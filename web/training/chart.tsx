/** A line chart over the steps of a run. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import type { Table } from "./series.ts";

export interface Curve {
  readonly label: string;
  /** A custom property of the style sheet, such as "--accent". */
  readonly colour: string;
  readonly width: number;
  /** Mark the points, for curves with few of them. */
  readonly points?: boolean;
}

interface ChartProps {
  /** Label for screen readers. */
  readonly name: string;
  /** Label of the x axis. */
  readonly step: string;
  readonly curves: readonly Curve[];
  readonly data: Table;
  readonly format: (value: number) => string;
}

const height = 260;

export function Chart({ name, step, curves, data, format }: ChartProps) {
  const container = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const colours = useStore(theme);
  const hasData = data[0].length > 0;

  useEffect(() => {
    const box = container.current;
    // uPlot cannot draw axes without data.
    if (!box || !hasData) return;
    const drawn = new uPlot(options(box, step, curves, format), data as uPlot.AlignedData, box);
    plot.current = drawn;
    const resize = new ResizeObserver(() => drawn.setSize({ width: box.clientWidth, height }));
    resize.observe(box);
    // A canvas does not follow the theme by itself.
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => drawn.redraw();
    dark.addEventListener("change", redraw);
    return () => {
      dark.removeEventListener("change", redraw);
      resize.disconnect();
      drawn.destroy();
    };
  }, [step, curves, format, hasData]);

  useEffect(() => plot.current?.setData(data as uPlot.AlignedData), [data]);
  useEffect(() => plot.current?.redraw(), [colours]);
  return <div ref={container} class="chart" role="img" aria-label={name} />;
}

function options(
  box: HTMLElement,
  step: string,
  curves: readonly Curve[],
  format: (value: number) => string,
): uPlot.Options {
  const colour = (name: string) => () => resolve(name, box);
  const axis: uPlot.Axis = {
    stroke: colour("--ink-soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  return {
    width: box.clientWidth,
    height,
    scales: { x: { time: false } },
    cursor: { points: { size: 7 } },
    axes: [axis, { ...axis, size: 64, values: (_, values) => values.map(format) }],
    series: [
      { label: step },
      ...curves.map(({ label, colour: name, width: thickness, points = false }) => ({
        label,
        stroke: colour(name),
        width: thickness,
        points: { show: points, size: 6, fill: colour(name), stroke: colour(name) },
        spanGaps: true,
        value: (_: uPlot, value: number | null) => (value === null ? "–" : format(value)),
      })),
    ],
  };
}

/** Resolves a custom property for the canvas, through an element so that `light-dark()` works, too. */
function resolve(name: string, element: HTMLElement): string {
  element.style.color = `var(${name})`;
  const { color } = getComputedStyle(element);
  element.style.removeProperty("color");
  return color;
}
