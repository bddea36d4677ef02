/** Ways of looking at one picture in training: as it is, mirrored, and cropped, the same ones in every run. */
import { type Box, crop, mirror } from "../images/augment.ts";
import type { Pixels } from "../images/picture.ts";
import { Random } from "../tensor/random.ts";

export interface View {
  readonly mirrored: boolean;
  readonly box?: Box;
}

/** The picture as it is. */
export const asItIs: View = { mirrored: false };

export interface ViewOptions {
  readonly count: number;
  /** Smallest side of a crop as a share of the picture's side. */
  readonly minSide: number;
}

/** `count` views of the picture of this name: itself, its mirror image, and crops, every second one mirrored. */
export function viewsOf(name: string, { count, minSide }: ViewOptions): View[] {
  const random = new Random(seedOf(name));
  return Array.from({ length: count }, (_, i) => ({
    mirrored: i % 2 === 1,
    ...(i < 2 ? {} : { box: randomBox(random, minSide) }),
  }));
}

/** A name for the view: the same for the same view, another for each other one. */
export function viewName({ mirrored, box }: View): string {
  const corners = box ? [box.left, box.top, box.width, box.height].join(" ") : "whole";
  return mirrored ? `mirrored ${corners}` : corners;
}

/** The picture as a view shows it. */
export function show(pixels: Pixels, { mirrored, box }: View): Pixels {
  const seen = box ? crop(pixels, box) : pixels;
  return mirrored ? mirror(seen) : seen;
}

function randomBox(random: Random, minSide: number): Box {
  const side = () => minSide + (1 - minSide) * random.uniform();
  const [width, height] = [side(), side()];
  return { left: random.uniform() * (1 - width), top: random.uniform() * (1 - height), width, height };
}

/** FNV-1a over the name's characters. */
function seedOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
