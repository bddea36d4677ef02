/** The dimensions of the golden set `mha`, as the config of a model folder says them. */
export const goldenEncoder = {
  type: "eva_vit",
  image_size: 56,
  patch_size: 14,
  hidden_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  intermediate_size: 279,
} as const;

export const goldenQFormer = {
  num_query_tokens: 8,
  hidden_size: 48,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  intermediate_size: 96,
  encoder_width: 64,
} as const;
