/** Finds images of a folder by text, and those most similar to the best one: `npx tsx examples/find-images.ts FOLDER "a cat"` */
import { ImageSearch } from "minigpt4";

const [folder = "examples/images", text = "a cat", model = "nano"] = process.argv.slice(2);

// The first call embeds each image; later ones only those that are new or have changed.
await using images = await ImageSearch.open(folder, { model });
const found = await images.search(text, { top: 5 });
for (const { score, path } of found) console.log(score.toFixed(3), path);

const [best] = found;
if (best) {
  console.log(`\nSimilar to ${best.path}:`);
  for (const { score, path } of await images.like(best.path, { top: 5 })) console.log(score.toFixed(3), path);
}
