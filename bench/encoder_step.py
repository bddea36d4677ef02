"""The peer of encoding pictures: ViT and Q-Former in plain PyTorch, float32, from the same weights and pixels.

Reads lines from standard input; each is a number of pictures. Encodes so many, and prints milliseconds, peak memory and the Q-Former's output
for the first picture as JSON. Argument: JSON with the folder of the files, the shapes, and the number of threads.
"""

import json
import resource
import sys
import time

import torch
from vision import encode, load, look


def main():
    task = json.loads(sys.argv[1])
    shapes = task["shapes"]
    torch.set_num_threads(task["threads"])
    weights = load(f"{task['folder']}/image.safetensors")
    pixels = load(f"{task['folder']}/pixels.safetensors")["pixels"]
    print("ready", flush=True)
    for line in sys.stdin:
        batch = pixels[: int(line)].clone()
        started = time.perf_counter()
        with torch.inference_mode():
            seen = look(weights, encode(weights, batch, shapes["encoder"]), shapes["qformer"])
        milliseconds = (time.perf_counter() - started) * 1000
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        first = [round(value, 5) for value in seen[0].flatten().tolist()]
        print(json.dumps({"milliseconds": milliseconds, "peakBytes": peak, "first": first}), flush=True)


main()
