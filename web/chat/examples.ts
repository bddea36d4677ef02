/** The images that come with the project, and where they are from. */
import sources from "../../examples/images/SOURCES.md?raw";

export interface Example {
  readonly name: string;
  readonly url: string;
  readonly shows: string;
  readonly source: string;
}

const urls = import.meta.glob<string>("../../examples/images/*.jpg", {
  eager: true,
  query: "?url",
  import: "default",
});

/** The rows of a table of sources: file, what it shows, source and licence. */
function readSources(markdown: string): { name: string; shows: string; source: string }[] {
  return [...markdown.matchAll(/^\|\s*`([^`]+)`\s*\|\s*(.+?)\s*\|\s*(.+?)\s*\|\s*$/gm)].map(
    ([, name = "", shows = "", source = ""]) => ({ name, shows, source: source.replaceAll("`", "") }),
  );
}

/** An image without a source is not shown. */
export const examples: readonly Example[] = readSources(sources).flatMap((row) => {
  const url = urls[`../../examples/images/${row.name}`];
  return url ? [{ ...row, url }] : [];
});
