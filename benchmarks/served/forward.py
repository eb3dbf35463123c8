"""The network alone: forward passes of one sample a second, in one process with one thread.

python forward.py KIND SECONDS
"""

import sys
import time

import torch
from networks import KINDS, Served


def main(kind: str, seconds: float) -> None:
    torch.set_num_threads(1)
    model = Served(kind)
    height, width, channels = KINDS[kind][0]
    values = torch.rand(1, height * width * channels) * 255
    count = 0
    with torch.inference_mode():
        for _ in range(50):
            model(values)
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            model(values)
            count += 1
        print(count / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
