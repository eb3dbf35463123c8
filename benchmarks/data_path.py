"""The data path against torchvision's: images a second, and what it costs a training.

    python benchmarks/data_path.py [--threads 4] [--batch-size 512] [--rounds 5] …

Table 1: CIFAR-shaped synthetic images, random crop (padding 4), flip, normalise. torchvision's CIFAR-style
data set with PIL transforms behind a DataLoader of 0, 2 and 4 workers, a plainly vectorised tensor path (one
gather by pixel index), and `assay.data.batches` over a memory-mapped store.
Table 2: steps of training ResNet-18 from the store with that augmentation, against a bare loop over a tensor
already in memory without any.
Contenders take turns within each round; medians over rounds; a DataLoader's workers start outside the clock.
Run it on an otherwise idle machine: short parallel operations suffer most from other processes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from assay.config.arm import Augmentation
from assay.data.batches import Batches
from assay.data.store import Split

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
AUGMENTATION = Augmentation(crop_padding=4, horizontal_flip=0.5)


class PilDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What `torchvision.datasets.CIFAR10` does with an image, on images made here."""

    def __init__(self, split: Split) -> None:
        from torchvision import transforms

        self.images, self.labels = np.array(split.images), split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def make_split(folder: Path, count: int) -> Split:
    """A memory-mapped split of random CIFAR-shaped images."""
    random = np.random.default_rng(0)
    images = open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, 32, 32, 3))
    images[:] = random.integers(0, 256, images.shape, dtype=np.uint8)
    images.flush()
    return Split(open_memmap(folder / "images.npy", mode="r"), random.integers(0, 10, count))


def plain_path(split: Split, batch_size: int) -> Iterator[Tensor]:
    """A vectorised path as one writes it first: pad all, then gather every pixel by its index."""
    padded = torch.nn.functional.pad(torch.tensor(split.images).permute(0, 3, 1, 2), (4, 4, 4, 4))
    mean, std = torch.tensor(MEAN).view(3, 1, 1) * 255, torch.tensor(STD).view(3, 1, 1) * 255
    yield torch.empty(0)
    side = torch.arange(32)
    for chosen in torch.split(torch.randperm(len(split)), batch_size):
        count = len(chosen)
        rows = torch.randint(9, (count, 1)) + side
        columns = torch.randint(9, (count, 1)) + side
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
        crops = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        yield (crops.permute(0, 3, 1, 2).float() - mean) / std


def loader_path(split: Split, batch_size: int, workers: int) -> Iterator[Tensor]:
    loader = torch.utils.data.DataLoader(
        PilDataset(split), batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    iterator = iter(loader)
    yield next(iterator)[0]
    for images, _ in iterator:
        yield images


def store_path(split: Split, batch_size: int, channels_last: bool) -> Iterator[Tensor]:
    batches = Batches(
        split, batch_size=batch_size, device="cpu", mean=MEAN, std=STD, channels_last=channels_last
    )
    yield torch.empty(0)
    for batch in batches.epoch(0, 0, AUGMENTATION, classes=10):
        yield batch.images


def rate(path: Iterator[Tensor], limit: int) -> float:
    """Images a second after the first item, which sets up; up to `limit` images."""
    next(path)
    start, count = time.perf_counter(), 0
    for images in path:
        count += len(images)
        if count >= limit:
            break
    return count / (time.perf_counter() - start)


def compare_paths(arguments: argparse.Namespace, split: Split) -> None:
    small = Split(split.images[: arguments.loader_images], split.labels[: arguments.loader_images])
    size = arguments.batch_size
    contenders: dict[str, Callable[[], float]] = {
        f"torchvision PIL + DataLoader, {workers} workers": lambda workers=workers: rate(  # type: ignore[misc]
            loader_path(small, size, workers), len(small)
        )
        for workers in arguments.workers
    }
    loaders = list(contenders)
    contenders["vectorised tensor path, plain"] = lambda: rate(plain_path(split, size), len(split))
    contenders["assay.data, NCHW"] = lambda: rate(store_path(split, size, False), len(split))
    contenders["assay.data, channels_last"] = lambda: rate(store_path(split, size, True), len(split))
    rates = take_turns(contenders, arguments.rounds)
    best = max(rates[name] for name in loaders)
    print(
        f"\nCIFAR-shaped images, batch {size}, {torch.get_num_threads()} threads, {arguments.rounds} rounds"
    )
    print(f"{'path':<44}{'images/s':>12}{'/ best DataLoader':>20}")
    for name, value in rates.items():
        print(f"{name:<44}{value:>12,.0f}{value / best:>20.2f}")


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median result of each contender; every round starts with another one."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            results[name].append(contenders[name]())
    return {name: statistics.median(values) for name, values in results.items()}


def compare_training(arguments: argparse.Namespace, split: Split) -> None:
    """Alternates single steps, so that both see the same machine: ratio of medians, and median of ratios."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model, size = resnet18(num_classes=10), arguments.training_batch_size
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    epoch = Batches(split, batch_size=size, device="cpu", mean=MEAN, std=STD).epoch(
        0, 0, AUGMENTATION, classes=10
    )
    count = size * 8
    images = torch.randn(count, 3, 32, 32)
    labels = torch.from_numpy(np.array(split.labels[:count]))
    times: dict[str, list[float]] = {"bare": [], "store": []}
    for number in range(arguments.training_steps + 3):
        for name in ("bare", "store") if number % 2 else ("store", "bare"):
            start = time.perf_counter()
            if name == "store":
                batch = next(epoch)
                step(model, optimizer, batch.images, batch.labels)
            else:
                place = slice(number % 8 * size, (number % 8 + 1) * size)
                step(model, optimizer, images[place], labels[place])
            times[name].append(time.perf_counter() - start)
    bare, store = (times[name][3:] for name in ("bare", "store"))
    ratio = statistics.median(one / two for one, two in zip(bare, store, strict=True))
    print(f"\nTraining ResNet-18, batch {size}, {arguments.training_steps} steps each, in alternation")
    print(f"{'images from':<44}{'images/s':>12}{'/ bare loop':>20}")
    print(f"{'a tensor in memory, no augmentation':<44}{size / statistics.median(bare):>12,.1f}{1:>20.3f}")
    print(f"{'the store, crop and flip':<44}{size / statistics.median(store):>12,.1f}{ratio:>20.3f}")


def step(model: nn.Module, optimizer: Any, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50_000, help="images of the split")
    parser.add_argument("--loader-images", type=int, default=20_000, help="of these, for the DataLoaders")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training-batch-size", type=int, default=64)
    parser.add_argument("--training-steps", type=int, default=60, help="0: no training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        split = make_split(Path(folder), arguments.images)
        compare_paths(arguments, split)
        if arguments.training_steps:
            compare_training(arguments, split)


if __name__ == "__main__":
    main()
