"""MiniGPT-4's way of a picture in plain PyTorch: ViT and Q-Former, with weights of a safetensors file."""

import json

import torch
from torch.nn import functional as F


def load(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    floats = torch.frombuffer(data, dtype=torch.float32, offset=start)
    part = lambda shape, begin, end: floats[begin // 4 : end // 4].view(shape)
    return {name: part(entry["shape"], *entry["data_offsets"]) for name, entry in header.items()}


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def heads(x, count):
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def joined(x):
    return x.transpose(1, 2).flatten(2)


def encode(w, pixels, shapes):
    width, patch, count = shapes["hidden_size"], shapes["patch_size"], shapes["num_attention_heads"]
    patches = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    x = torch.cat((w["cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)), 1) + w["pos_embed"]
    for i in range(shapes["num_hidden_layers"]):
        block = f"blocks.{i}"
        bias = torch.cat((w[f"{block}.attn.q_bias"], torch.zeros(width), w[f"{block}.attn.v_bias"]))
        qkv = F.linear(norm(w, f"{block}.norm1", x, 1e-6), w[f"{block}.attn.qkv.weight"], bias)
        q, k, v = (heads(part, count) for part in qkv.chunk(3, -1))
        x = x + linear(w, f"{block}.attn.proj", joined(F.scaled_dot_product_attention(q, k, v)))
        hidden = F.gelu(linear(w, f"{block}.mlp.fc1", norm(w, f"{block}.norm2", x, 1e-6)))
        x = x + linear(w, f"{block}.mlp.fc2", hidden)
    return norm(w, "ln_vision", x, 1e-5)


def bert_attention(w, name, x, context, count):
    inputs = {"query": x, "key": context, "value": context}
    q, k, v = (heads(linear(w, f"{name}.self.{part}", y), count) for part, y in inputs.items())
    out = linear(w, f"{name}.output.dense", joined(F.scaled_dot_product_attention(q, k, v)))
    return norm(w, f"{name}.output.LayerNorm", x + out, 1e-12)


def look(w, image, shapes):
    count = shapes["num_attention_heads"]
    x = norm(w, "Qformer.bert.embeddings.LayerNorm", w["query_tokens"].expand(len(image), -1, -1), 1e-12)
    for i in range(shapes["num_hidden_layers"]):
        layer = f"Qformer.bert.encoder.layer.{i}"
        x = bert_attention(w, f"{layer}.attention", x, x, count)
        if i % shapes["cross_attention_frequency"] == 0:
            x = bert_attention(w, f"{layer}.crossattention", x, image, count)
        hidden = F.gelu(linear(w, f"{layer}.intermediate_query.dense", x))
        x = norm(w, f"{layer}.output_query.LayerNorm", x + linear(w, f"{layer}.output_query.dense", hidden), 1e-12)
    return x
