/** Why the server does not take a picture, in words that are fit for whoever sent it. */

/** Codes as OpenAI has them: of the URL itself, of what it holds, and of fetching it. */
export type ImageRefusal =
  | "invalid_image_url"
  | "invalid_base64"
  | "image_too_large"
  | "invalid_image"
  | "failed_to_download_image";

/** A picture is refused. The message says nothing of this machine or of its networks. */
export class ImageRefusedError extends Error {
  override name = "ImageRefusedError";
  readonly code: ImageRefusal;

  constructor(code: ImageRefusal, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export function tooManyBytes(maxBytes: number): ImageRefusedError {
  return new ImageRefusedError("image_too_large", `The image has more than ${maxBytes} bytes; make it smaller first`);
}
