/** An encoded picture becomes the image encoder's input. */
import { readPicture } from "../../images/picture.ts";
import { type ImageSpec, preprocess } from "../../images/preprocess.ts";
import { show, type View } from "../views.ts";

export interface DecodeTask {
  /** For messages. */
  readonly name: string;
  /** The encoded picture. */
  readonly bytes: Uint8Array;
  readonly view: View;
  readonly spec: ImageSpec;
}

/** @returns the values of [3, size, size]. @throws PictureError if it is no picture that can be read */
export async function decodePicture({ name, bytes, view, spec }: DecodeTask): Promise<Float32Array> {
  return preprocess(show(await readPicture(bytes, { name }), view), spec).data;
}
