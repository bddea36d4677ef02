/** Ways of looking at one picture in training: as it is, mirrored, and cropped, the same ones in every run. */
import { type Box, crop, mirror } from "../images/augment.ts";
import type { Pixels } from "../images/picture.ts";
import { Random } from "../tensor/random.ts";

export interface View {
  readonly mirrored: boolean;
  readonly box?: Box;
}

export interface ViewOptions {
  readonly count: number;
  /** Smallest side of a crop as a share of the picture's side. */
  readonly minSide: number;
}

/** `count` views of a picture: itself, its mirror image, and crops, every second one mirrored. */
export function viewsOf(seed: number, { count, minSide }: ViewOptions): View[] {
  const random = new Random(seed);
  return Array.from({ length: count }, (_, i) => ({
    mirrored: i % 2 === 1,
    ...(i < 2 ? {} : { box: randomBox(random, minSide) }),
  }));
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
