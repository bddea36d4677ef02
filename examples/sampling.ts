/** Sampled descriptions of an image, the same for the same seed: `npx tsx examples/sampling.ts cat.jpg` */
import { type AnswerOptions, MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

await using model = await MiniGPT4.load(name);
const sampling: AnswerOptions = { temperature: 0.8, topP: 0.9, maxNewTokens: 60 };
for (const seed of [1, 2, 3]) console.log(`seed ${seed}: ${await model.describe(image, { ...sampling, seed })}`);
console.log(`greedy: ${await model.describe(image, { maxNewTokens: 60 })}`);
console.log(`beam search: ${await model.describe(image, { numBeams: 5, maxNewTokens: 60 })}`);
