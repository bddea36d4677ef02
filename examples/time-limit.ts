/** An answer within a time limit, or what there is of it: `npx tsx examples/time-limit.ts cat.jpg 2000` */
import { MiniGPT4 } from "minigpt4";

const [image = "examples/images/cat.jpg", milliseconds = "2000", name = "nano"] = process.argv.slice(2);

const model = await MiniGPT4.load(name);
const signal = AbortSignal.timeout(Number(milliseconds));
let answer = "";
try {
  const question = "Describe everything that you see.";
  for await (const text of model.chat().ask(question, { images: [image], signal })) answer += text;
  console.log(answer);
} catch (error) {
  if (!signal.aborted) throw error;
  console.log(`${answer} ... (not finished after ${milliseconds} ms)`);
}
await model.close();
