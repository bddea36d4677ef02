"""The peer of a stage-1 step: what MiniGPT-4's code computes, in plain PyTorch, from the same weights and batch.

Reads lines from standard input; for each it takes one step and prints milliseconds, loss and peak memory as JSON.
Argument: JSON with the folder of the weights, the shapes, the captions' token ids, and the number of threads.
"""

import json
import resource
import sys
import time

import torch
from torch.nn import functional as F
from vision import encode, heads, joined, linear, load, look

BOS, IGNORED = 1, -100


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def rms_norm(w, name, x):
    # Not PyTorch's fused one: Hugging Face's LLaMA computes it in these steps.
    return w[f"{name}.weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def llama(w, x, padding, shapes):
    """padding: true for a token, [batch, length]."""
    length, count = x.shape[1], shapes["num_attention_heads"]
    size = x.shape[-1] // count
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
    mask = torch.ones(length, length, dtype=torch.bool).tril() & padding[:, None, None, :]
    for i in range(shapes["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        normal = rms_norm(w, f"{layer}.input_layernorm", x)
        q, k, v = (heads(linear(w, f"{layer}.self_attn.{part}_proj", normal), count) for part in "qkv")
        seen = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, attn_mask=mask)
        x = x + linear(w, f"{layer}.self_attn.o_proj", joined(seen))
        normal = rms_norm(w, f"{layer}.post_attention_layernorm", x)
        gated = F.silu(linear(w, f"{layer}.mlp.gate_proj", normal)) * linear(w, f"{layer}.mlp.up_proj", normal)
        x = x + linear(w, f"{layer}.mlp.down_proj", gated)
    return linear(w, "lm_head", rms_norm(w, "model.norm", x))


def main():
    task = json.loads(sys.argv[1])
    shapes, captions = task["shapes"], task["captions"]
    torch.set_num_threads(task["threads"])
    image, llm = load(f"{task['folder']}/image.safetensors"), load(f"{task['folder']}/llm/model.safetensors")
    pixels = load(f"{task['folder']}/pixels.safetensors")["pixels"]
    weight, bias = (torch.nn.Parameter(image[f"llama_proj.{name}"].clone()) for name in ("weight", "bias"))
    optimizer = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": 0.05}, {"params": [bias], "weight_decay": 0}], lr=1e-4
    )
    longest, queries = max(map(len, captions)), shapes["qformer"]["num_query_tokens"]
    ids = torch.tensor([caption + [0] * (longest - len(caption)) for caption in captions])
    is_token = torch.tensor([[i < len(caption) for i in range(longest)] for caption in captions])
    prefix = torch.ones(len(ids), 1 + queries, dtype=torch.bool)
    targets = torch.cat((torch.full(prefix.shape, IGNORED), ids.masked_fill(~is_token, IGNORED)), 1)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        with torch.no_grad():
            seen = look(image, encode(image, pixels, shapes["encoder"]), shapes["qformer"])
        table = llm["model.embed_tokens.weight"]
        begin = F.embedding(torch.full((len(ids), 1), BOS), table)
        x = torch.cat((begin, F.linear(seen, weight, bias), F.embedding(ids, table)), 1)
        logits = llama(llm, x, torch.cat((prefix, is_token), 1), shapes["llm"])
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        milliseconds = (time.perf_counter() - started) * 1000
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"milliseconds": milliseconds, "loss": loss.item(), "peakBytes": peak}), flush=True)


main()
