"""The peer of the training step: the same network in plain PyTorch, with random weights of the same shapes.

Reads lines from standard input; for each it takes one step and prints its milliseconds. First argument: threads.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, MLP, VOCAB = 576, 30, 9, 3, 64, 1536, 49152
WIDTH, QUERIES, QUERY_HEADS, IMAGE = 384, 8, 6, 1280
BATCH, PREFIX, ANSWER, CELLS = 16, 12, 12, 49


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD, bias=False)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * MLP, bias=False)
        self.down = nn.Linear(MLP, HIDDEN, bias=False)
        self.norm1 = nn.RMSNorm(HIDDEN, 1e-5)
        self.norm2 = nn.RMSNorm(HIDDEN, 1e-5)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        joined = self.qkv(self.norm1(x)).view(batch, length, -1, HEAD).transpose(1, 2)
        q, k, v = joined.split((HEADS, KV_HEADS, KV_HEADS), 1)
        seen = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True
        )
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, HIDDEN))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Attention(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.q, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = nn.Linear(context, WIDTH), nn.Linear(context, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, x, context):
        heads = lambda y: y.view(len(y), -1, QUERY_HEADS, WIDTH // QUERY_HEADS).transpose(1, 2)
        seen = F.scaled_dot_product_attention(heads(self.q(x)), heads(self.k(context)), heads(self.v(context)))
        return self.norm(x + self.out(seen.transpose(1, 2).flatten(2)))


class QFormerLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.cross = Attention(WIDTH), Attention(IMAGE)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, x, image):
        x = self.cross(self.own(x, x), image)
        return self.norm(x + self.outer(F.gelu(self.inner(x))))


class Trained(nn.Module):
    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, QUERIES, WIDTH) * 0.02)
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.layers = nn.ModuleList(QFormerLayer() for _ in range(3))
        self.projection = nn.Linear(WIDTH, HIDDEN)

    def forward(self, image):
        x = self.norm(self.queries).expand(len(image), -1, -1)
        for layer in self.layers:
            x = layer(x, image)
        return self.projection(x)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    trained = Trained()
    blocks = nn.ModuleList(Block() for _ in range(LAYERS)).requires_grad_(False)
    norm = nn.RMSNorm(HIDDEN, 1e-5).requires_grad_(False)
    table = torch.randn(VOCAB, HIDDEN) * 0.1
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, weight_decay=0.05)
    features = torch.randn(BATCH, CELLS, IMAGE).relu()
    ids = torch.randint(VOCAB, (BATCH, PREFIX - QUERIES + ANSWER))
    length = PREFIX + ANSWER - 1
    angles = torch.arange(length)[:, None] / 100000 ** (torch.arange(0, HEAD, 2) / HEAD)
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        words = F.embedding(ids[:, :-1], table)
        x = torch.cat((words[:, :1], trained(features), words[:, 1:]), 1)
        for block in blocks:
            x = block(x, cos, sin)
        # Logits only where there is a target, as ours has it.
        scores = norm(x)[:, PREFIX - 1 :].reshape(-1, HIDDEN) @ table.T
        loss = F.cross_entropy(scores, ids[:, PREFIX - QUERIES :].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        print((time.perf_counter() - started) * 1000, flush=True)


main()
