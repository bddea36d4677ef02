import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openBlip2Folder } from "../../src/models/blip2-folder.ts";
import { openModelFolder } from "../../src/models/model-folder.ts";
import { tinyBlip2 } from "../helpers/blip2-tiny.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const root = temporaryFolder();

test("reads configuration, tokenizer and weights", async () => {
  const folder = await openBlip2Folder(tinyBlip2(root));
  expect(folder).toMatchObject({
    config: {
      encoder: { type: "eva_vit", imageSize: 56, hiddenSize: 64 },
      qformer: { numQueryTokens: 8, vocabSize: 1001, maxPositionEmbeddings: 64, crossAttentionFrequency: 2 },
      embedDim: 32,
    },
    maxTextLength: 16,
    tokenizer: { size: 1001, decId: 1000, lowerCase: true },
  });
  expect(folder.tokenizer.encode("AB c", 8)).toHaveLength(4);
  expect(folder.sources.encoder.tensors.has("cls_token")).toBe(true);
  expect(folder.sources.qformer.tensors.has("itm_head.weight")).toBe(true);
  await folder.close();
});

test.each([
  ["embed_dim", { embed_dim: 0 }, /config\.json does not describe a pre-trained Q-Former:.*at embed_dim/s],
  ["another field", { projection: "x" }, /config\.json.*"projection"/s],
  ["positions", { max_txt_len: 65 }, /config\.json: max_txt_len is 65, but the Q-Former has 64 positions/],
  ["weights", { weights: { encoder: "gone.pth", qformer: "gone.pth" } }, /gone\.pth/],
])("%s", async (name, change: object, message) => {
  await expect(openBlip2Folder(tinyBlip2(root, name, () => change))).rejects.toThrow(message);
});

test("a vocabulary that is larger than the embeddings, or missing", async () => {
  const folder = tinyBlip2(root, "vocabulary");
  const file = join(folder, "vocab.txt");
  writeFileSync(file, `${readFileSync(file, "utf8")}onemore\n`);
  await expect(openBlip2Folder(folder)).rejects.toThrow(
    /config\.json: qformer\.vocab_size is 1001, but the vocabulary has 1002 tokens/,
  );
  rmSync(file);
  await expect(openBlip2Folder(folder)).rejects.toThrow(folder);
});

test("a folder of another type is refused with what it is for", async () => {
  const [qformer, minigpt4] = [tinyBlip2(root, "qformer"), tinyModel(root)];
  await expect(openModelFolder(qformer)).rejects.toThrow(
    `${qformer} is a pre-trained BLIP-2 Q-Former without a language model, not a MiniGPT-4. Use it with \`minigpt4 search\``,
  );
  await expect(openBlip2Folder(minigpt4)).rejects.toThrow(
    `${minigpt4} is a MiniGPT-4, not a pre-trained BLIP-2 Q-Former without a language model. Use it with \`minigpt4 describe\``,
  );
  await expect(openBlip2Folder(root)).rejects.toThrow(`${root} is not a model folder: it has no config.json`);
});
