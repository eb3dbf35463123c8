"""Whether the image can do what jobs ask of it, on any machine: imports, and arithmetic on the CPU."""

import numpy
import polars
import pydantic
import safetensors.torch
import scipy
import sklearn
import torch
import torchvision

product = torch.full((64, 64), 2.0) @ torch.eye(64)
if not bool((product == 2.0).all()):
    raise SystemExit("torch computes wrongly on the CPU")
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
modules = (numpy, polars, pydantic, safetensors.torch, scipy, sklearn)
print("torch", torch.__version__, "torchvision", torchvision.__version__, "and", len(modules), "others: fine")
