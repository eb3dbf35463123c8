"""One training of the default experiment as a bare PyTorch loop: the named alternative of `harness.py`.

Nothing of Assay is imported. The tensors are read from the prepared store, the network, optimiser, schedule,
batches and validation are those of the experiment.
"""

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn


def network(kind: str, classes: int, size: int, channels: int = 1) -> nn.Module:
    """The networks of the default experiment, layer by layer."""
    if kind == "mlp":
        widths = (channels * size * size, 256, 128)
        hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU(inplace=True))]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], classes))
    layers: list[nn.Module] = []
    for stage, (before, after) in enumerate(pairwise((channels, 16, 32, 64))):
        layers += [nn.MaxPool2d(2)] if stage else []
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["mlp", "cnn"], required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)

    def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(np.load(options.data / f"{split}.images.npy")).permute(0, 3, 1, 2).float()
        return images / 255, torch.from_numpy(np.load(options.data / f"{split}.labels.npy"))

    images, labels = tensors("train")
    validation_images, validation_labels = tensors("validation")
    mean, std = images.mean(), images.std()
    images, validation_images = (images - mean) / std, (validation_images - mean) / std
    model = network(options.kind, int(labels.max()) + 1, images.shape[-1])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = len(images) // options.batch_size
    total = steps * options.epochs

    def factor(step: int) -> float:
        if step < steps:
            return (step + 1) / steps
        return 0.5 * (1 + math.cos(math.pi * (step - steps) / (total - steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    criterion = nn.CrossEntropyLoss()
    for _ in range(options.epochs):
        model.train()
        order = torch.randperm(len(images))
        for step in range(steps):
            chosen = order[step * options.batch_size : (step + 1) * options.batch_size]
            optimizer.zero_grad()
            loss = criterion(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            logits = model(validation_images)
            accuracy = float((logits.argmax(1) == validation_labels).float().mean())
    options.output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.output / "model.pt")
    (options.output / "result.json").write_text(json.dumps({"validation_accuracy": accuracy}))


if __name__ == "__main__":
    main()
