/** Pictures on their way to the frozen encoder: from the feature cache where it has them, else decoded. */
import type { ImageSpec } from "../../images/preprocess.ts";
import { sizeOf } from "../../tensor/array.ts";
import type { ImageTextPair } from "../dataset.ts";
import type { Decoder } from "../decoding/decoder.ts";
import { readSpan } from "../file-span.ts";
import { type View, viewName } from "../views.ts";
import { type FeatureCache, pictureId } from "./feature-cache.ts";

/** A picture in one of its views: kept features, or the encoder's input. */
export type LoadedPicture =
  | { readonly features: Float32Array }
  /** `pixels` [3, size, size], and the id under which the cache keeps what comes of them. */
  | { readonly pixels: Float32Array; readonly id: string };

/** Pictures whose content is remembered by name, so that their files need not be read again to find their features. */
const remembered = 200_000;

export class PictureLoader {
  private readonly spec: ImageSpec;
  private readonly decoder: Decoder;
  private readonly cache: FeatureCache | undefined;
  private readonly ids = new Map<string, string>();

  constructor(spec: ImageSpec, decoder: Decoder, cache?: FeatureCache) {
    this.spec = spec;
    this.decoder = decoder;
    this.cache = cache;
  }

  /** @throws Error naming the picture if it cannot be read */
  async load({ name, picture }: ImageTextPair, view: View): Promise<LoadedPicture> {
    const key = `${name} ${viewName(view)}`;
    const known = this.ids.get(key);
    const kept = known === undefined ? undefined : await this.kept(known);
    if (kept) return kept;
    const bytes = await readSpan(picture);
    const id = pictureId(bytes, viewName(view));
    if (this.cache && this.ids.size < remembered) this.ids.set(key, id);
    const features = await this.kept(id);
    if (features) return features;
    return { id, pixels: await this.decoder.decode({ name, bytes, view, spec: this.spec }) };
  }

  private async kept(id: string): Promise<LoadedPicture | undefined> {
    if (!this.cache?.has(id)) return undefined;
    const features = new Float32Array(sizeOf(this.cache.shape));
    return (await this.cache.read(id, features)) ? { features } : undefined;
  }
}
