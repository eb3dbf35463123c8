"""A training of tensors in memory, as a process that `training.py` times: a bare loop, or the loop of a reference script.

    python benchmarks/contenders.py bare|timm|torchvision --images FILE.npz … [-- options of the reference script]

The images are padded once and kept on the device as uint8; each batch is cropped, flipped and normalised by one
gather. Of a reference script only the loading of images is replaced; its loop, validation, log and checkpoints run
as they are. `bare` validates after every epoch and writes no log and no checkpoint. Nothing of Assay is imported.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_training import network
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PADDING = 4


class Loader:
    """Batches of one split, as a plain vectorised path makes them; also stands for the data set that it loads."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, *, training: bool) -> None:
        self.side, self.batch_size, self.training = images.shape[1], batch_size, training
        pad = (PADDING,) * 4 if training else (0,) * 4
        self.images = nn.functional.pad(images.permute(0, 3, 1, 2), pad)
        if not training:
            self.images = self.images.contiguous()  # the layout in which all the others get their images
        self.labels = labels
        device = images.device
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1) * 255
        self.std = torch.tensor(STD, device=device).view(3, 1, 1) * 255
        self.classes = [str(label) for label in range(int(labels.max()) + 1)]
        self.dataset = labels

    def __len__(self) -> int:
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole if self.training else whole + bool(rest)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device, count = self.labels.device, len(self.labels)
        order = torch.randperm(count, device=device) if self.training else torch.arange(count, device=device)
        for step in range(len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = self.crop(chosen) if self.training else self.images[chosen]
            yield (images.float() - self.mean) / self.std, self.labels[chosen]

    def crop(self, chosen: Tensor) -> Tensor:
        """uint8 [B, C, H, W]: random crops of the padded images, half of them flipped."""
        count, device = len(chosen), chosen.device
        side = torch.arange(self.side, device=device)
        rows = torch.randint(2 * PADDING + 1, (count, 1), device=device) + side
        columns = torch.randint(2 * PADDING + 1, (count, 1), device=device) + side
        columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
        crops: Tensor = self.images[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return crops.permute(0, 3, 1, 2).contiguous()


def loaders(options: argparse.Namespace) -> tuple[Loader, Loader]:
    arrays = np.load(options.images)

    def loader(split: str) -> Loader:
        images, labels = (torch.from_numpy(arrays[f"{split}_{what}"]) for what in ("images", "labels"))
        images, labels = images.to(options.device), labels.to(options.device)
        return Loader(images, labels, options.batch_size, training=split == "train")

    return loader("train"), loader("val")


def build(name: str, classes: int, size: int) -> nn.Module:
    """One of the default experiment's networks (`builtin:mlp`, `builtin:cnn`) or one of torchvision's."""
    if name.startswith("builtin:"):
        return network(name.removeprefix("builtin:"), classes, size, channels=3)
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, num_classes=classes)
    return model


def bare(options: argparse.Namespace, training: Loader, validation: Loader) -> None:
    model = build(options.model, len(training.classes), training.side).to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(options.epochs):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.inference_mode():
            hits = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in validation)
        print(f"epoch {epoch}: {hits / len(validation.labels):.3f}", flush=True)


def torchvision_loop(options: argparse.Namespace, training: Loader, validation: Loader) -> None:
    sys.path.insert(0, str(options.script.parent))
    script: Any = __import__("train")
    script.load_data = lambda *_: (training, validation, None, None)
    torch.utils.data.DataLoader = lambda loader, **_: loader  # type: ignore[assignment,misc]
    script.main(script.get_args_parser().parse_args(options.rest))


def timm_loop(options: argparse.Namespace, training: Loader, validation: Loader) -> None:
    sys.path.insert(0, str(options.script.parent))
    script: Any = __import__("train")
    script.create_dataset = lambda *_, is_training=False, **__: training if is_training else validation
    script.create_loader = lambda dataset, *_, **__: dataset
    sys.argv = [str(options.script), *options.rest]
    script.main()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["bare", "timm", "torchvision"])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--script", type=Path, help="the reference's train.py")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    own, _, rest = " ".join(sys.argv[1:]).partition(" -- ")
    options = parser.parse_args(own.split())
    options.rest = rest.split()
    run = {"bare": bare, "timm": timm_loop, "torchvision": torchvision_loop}[options.kind]
    run(options, *loaders(options))


if __name__ == "__main__":
    main()
