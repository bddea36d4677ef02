/** JSON headers of files that may be hostile. */

/** Each bracket is a byte in the file and up to a hundred in memory; 100 MB of real header has some ten million of these. */
const mostTokens = 10_000_000;
const deepest = 16;
const [quotation, backslash, comma, openList, closeList, openObject, closeObject] = new TextEncoder().encode(
  '"\\,[]{}',
);

/** @throws Error if the text is no UTF-8, no JSON, or would take far more memory than it has bytes */
export function parseJson(bytes: Uint8Array): unknown {
  checkStructure(bytes);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new Error("is no JSON text in UTF-8", { cause: error });
  }
}

function checkStructure(bytes: Uint8Array): void {
  let tokens = 0;
  let depth = 0;
  let inText = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inText) {
      if (byte === backslash) i++;
      else if (byte === quotation) inText = false;
    } else if (byte === quotation) inText = true;
    else if (byte === comma) tokens++;
    else if (byte === openList || byte === openObject) {
      tokens++;
      if (++depth > deepest) throw new Error(`is JSON nested more than ${deepest} deep`);
    } else if (byte === closeList || byte === closeObject) depth--;
  }
  if (tokens > mostTokens) throw new Error(`is JSON of more than ${mostTokens} values`);
}
