import { expect, test } from "vitest";
import { withCurrentQuantization } from "../../../src/tensor/quant/quantization.ts";

test.each([
  [
    { precision: "stored", llm: "x" },
    { quantization: "native", llm: "x" },
  ],
  [{ precision: "as stored" }, { quantization: "native" }],
  [{ precision: "fp16" }, { quantization: "float16" }],
  [{ precision: "fp32" }, { quantization: "float32" }],
  [{ precision: "int4" }, { quantization: "int4" }],
  [{ precision: "int4-128" }, { quantization: "int4", block_size: 128 }],
  [{ quantization: "int4" }, { quantization: "int4" }],
  [{ llm: "x" }, { llm: "x" }],
  ["text", "text"],
])("JSON of earlier versions: %j", (json, expected) => {
  expect(withCurrentQuantization(json)).toEqual(expected);
});
