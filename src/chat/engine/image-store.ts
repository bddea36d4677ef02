/** Image tokens of the pictures that were seen lately, so that the next question about one does not look at it again. */
import type { Pixels } from "../../images/picture.ts";
import type { ImageReader, ImageTokens } from "../image-reader.ts";
import type { Picture } from "./engine.ts";

/** How pictures are read, which differs between Node and a browser. */
export interface PictureSource {
  /** The same for the same picture, and for no other. */
  key(picture: Picture): Promise<string>;
  /** @throws QuestionError if it is no picture that can be read */
  decode(picture: Picture): Promise<Pixels>;
}

/** Pictures that are remembered. */
const capacity = 64;

export class ImageStore {
  private readonly reader: ImageReader;
  private readonly source: PictureSource;
  /** The one that was used last comes last. */
  private readonly known = new Map<string, Promise<ImageTokens>>();

  constructor(reader: ImageReader, source: PictureSource) {
    this.reader = reader;
    this.source = source;
  }

  /** The same arrays for the same picture: by them a language model's cache knows it again. */
  async read(picture: Picture): Promise<ImageTokens> {
    const key = await this.source.key(picture);
    const tokens = this.known.get(key) ?? this.look(picture);
    this.known.delete(key);
    this.known.set(key, tokens);
    for (const [oldest] of this.known) if (this.known.size > capacity) this.known.delete(oldest);
    return tokens.catch((error) => {
      this.known.delete(key);
      throw error;
    });
  }

  release(): Promise<void> {
    return this.reader.release();
  }

  private async look(picture: Picture): Promise<ImageTokens> {
    return this.reader.read(await this.source.decode(picture));
  }
}
