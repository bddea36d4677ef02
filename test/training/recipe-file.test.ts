/** What a recipe says after the translation, and the keys that were left aside. */
import { expect, test } from "vitest";
import { parseDocument } from "yaml";
import { translateOriginalKeys } from "../../src/training/recipe-file.ts";

function translated(text: string) {
  const document = parseDocument(text);
  const ignored = translateOriginalKeys(document);
  return { ...document.toJS(), ignored };
}

test("arch mini_gpt4 is EVA ViT-g with a Q-Former, or without one", () => {
  const encoder = { type: "eva_vit" };
  expect(translated("model: { arch: mini_gpt4 }")).toEqual({
    model: { arch: "minigpt4", encoder, qformer: {} },
    ignored: [],
  });
  expect(translated("model: { arch: mini_gpt4, has_qformer: true, num_query_token: 32 }").model).toEqual({
    arch: "minigpt4",
    encoder,
    qformer: { num_query_tokens: 32 },
  });
  expect(translated("model: { arch: mini_gpt4, has_qformer: false, image_size: 448 }").model).toEqual({
    arch: "minigpt4",
    encoder: { ...encoder, image_size: 448 },
  });
});

test("a recipe in our own words stays as it is", () => {
  const text = `
model: { arch: minigpt4, llm: smollm2, trained: [queries], encoder: { type: efficientnet_lite0 } }
datasets: { walls: { path: walls, text_processor: none } }
run: { batch_size: 4, output_dir: out }`;
  expect(translated(text)).toEqual({ ...parseDocument(text).toJS(), ignored: [] });
});

test("where both names of a key are given, ours counts; an empty value is none", () => {
  expect(translated("model: { llama_model: theirs, llm: ours }").model).toEqual({ llm: "ours" });
  expect(translated("run: { batch_size_train: 12, batch_size: 3 }").run).toEqual({ batch_size: 3 });
  expect(translated('model: { q_former_model: "", ckpt: mine }\nrun: { resume_ckpt_path: null }')).toEqual({
    model: { ckpt: "mine" },
    run: {},
    ignored: [],
  });
  expect(translated("run: { resume_ckpt_path: theirs.pth, amp: true }").model).toEqual({ ckpt: "theirs.pth" });
});

test("each data set's storage is its path, and nothing empty is left of what was around it", () => {
  const { datasets, ignored } = translated(`
datasets:
  laion:
    data_type: images
    build_info: { storage: "laion/{00000..10488}.tar" }
    vis_processor: { train: { name: blip2_image_train } }
    text_processor: { train: { name: blip_caption }, eval: { name: blip_caption } }
    sample_ratio: 115
  cc_sbu:
    build_info: { storage: "cc_sbu/{00000..01255}.tar" }
    sample_ratio: 14`);
  expect(datasets).toEqual({
    laion: { path: "laion/{00000..10488}.tar", sample_ratio: 115 },
    cc_sbu: { path: "cc_sbu/{00000..01255}.tar", sample_ratio: 14 },
  });
  expect(ignored.sort()).toEqual([
    "datasets.laion.data_type",
    "datasets.laion.text_processor.eval",
    "datasets.laion.text_processor.train",
    "datasets.laion.vis_processor",
  ]);
});

test("whether the Q-Former is frozen says what is trained, unless the recipe says it", () => {
  const trained = (model: string) => translated(`model: { ${model} }`).model;
  expect(trained("freeze_qformer: true")).toEqual({ trained: ["projection"] });
  expect(trained("freeze_qformer: false")).toEqual({ trained: ["projection", "qformer"] });
  expect(trained("freeze_qformer: false, trained: [queries]")).toEqual({ trained: ["queries"] });
});

test.each([
  ["run: { lr_sched: constant_lr }", "run.lr_sched: constant_lr is not supported: the only schedule"],
  ["run: { evaluate: true }", "run.evaluate: true is not supported: a recipe trains"],
  ["model: { freeze_vit: false }", "model.freeze_vit: false is not supported: the image encoder"],
])("unsupported values of the original are an error: %s", (text, message) => {
  expect(() => translated(text)).toThrow(message);
});

test("an empty recipe, and one that is no table, are left to the reader's checks", () => {
  expect(translated("")).toEqual({ ignored: [] });
  expect(translated("model: 3").model).toBe(3);
  expect(() => translated("- a\n- b")).not.toThrow();
  expect(() => translated("model:\n  - a\nrun: text\ndatasets: [1]")).not.toThrow();
});
