/** Finds pictures of a folder by words, and others that are like the best one: `npx tsx examples/find-pictures.ts FOLDER "a cat"` */
import { PictureSearch } from "minigpt4";

const [folder = "examples/pictures", text = "a cat", model = "nano"] = process.argv.slice(2);

// The first time, each picture is read once; later only what was added or changed.
const pictures = await PictureSearch.open(folder, { model });
const found = await pictures.search(text, { top: 5 });
for (const { score, path } of found) console.log(score.toFixed(3), path);

const [best] = found;
if (best) {
  console.log(`\nLike ${best.path}:`);
  for (const { score, path } of await pictures.like(best.path, { top: 5 })) console.log(score.toFixed(3), path);
}
await pictures.close();
