/** Several descriptions of one image, drawn at random, the same ones on each run: `npx tsx examples/sampling.ts cat.jpg` */
import { type AnswerOptions, MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
const options: AnswerOptions = { temperature: 0.8, topP: 0.9, maxNewTokens: 60 };
for (const seed of [1, 2, 3]) console.log(`seed ${seed}: ${await model.describe(image, { ...options, seed })}`);
console.log(`likeliest words: ${await model.describe(image, { maxNewTokens: 60 })}`);
console.log(`best of 5: ${await model.describe(image, { numBeams: 5, maxNewTokens: 60 })}`);
await model.close();
