/** Whether the page was exported: then there is no server, and the page's own head names the model. */
export function modelBesidePage(): string | undefined {
  return document.querySelector<HTMLMetaElement>('meta[name="minigpt4-model"]')?.content || undefined;
}
