/** A projection that was made for another language model, told with both sides. */

/** @param projection what it projects from and to */
export function misfit(
  projection: { readonly path: string; readonly to: number; readonly from: number },
  llm: { readonly path: string; readonly width: number },
): string {
  return (
    `${projection.path} and ${llm.path} do not fit: llama_proj.weight is [${projection.to}, ${projection.from}], for a language ` +
    `model of width ${sized(projection.to)}, but this one has width ${sized(llm.width)}`
  );
}

/** A width, with the usual name of a LLaMA that has it. */
function sized(width: number): string {
  const names: Readonly<Record<number, string>> = { 4096: "7B", 5120: "13B", 6656: "30B", 8192: "65B" };
  return names[width] ? `${width} (${names[width]})` : `${width}`;
}
