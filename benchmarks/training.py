"""The train stage against a bare loop and the reference scripts of timm and torchvision: images a second.

    python benchmarks/training.py [--timm FOLDER] [--torchvision FOLDER] [--rounds 5] …

FOLDER is a checkout of pytorch-image-models or of torchvision at the tag of the installed version; what is not given
is left out, and the table says so. Everybody trains the same network on the same images with the same batch size,
precision, threads and kind of augmentation, in a process of its own bound to the same CPUs, and validates after each epoch.

Table `files`: resized crops and flips; the references decode PNG files as they always do, Assay reads its store.
Table `memory`: padded crops and flips; the references' loops, and a bare one, get tensors that are already on the device.
Assay's side is the entry point that the workflow starts, with log, telemetry at 10 Hz and checkpoints. An epoch begins where
the validation of the one before ended; the first is warm-up. Contenders take turns; every round begins with another one.
Images per second of the main thread's CPU time are told too: where a loader has no workers and there is one thread, that thread
does all the work, and other programs on the machine take less of that figure.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from contenders import build as contenders_build  # noqa: E402

from assay.config.arm import Model  # noqa: E402
from assay.config.schema import Data  # noqa: E402
from assay.data.prepare import prepare  # noqa: E402
from assay.models.build import build  # noqa: E402

EPOCH_ENDS = {
    "bare": re.compile(r"^epoch \d+:"),
    "timm": re.compile(r"Test: \[ *(\d+)/\1\]"),
    "torchvision": re.compile(r"^Test: .*Acc@1 [\d.]+ Acc@5"),
}
"""The line by which a contender says that it has validated."""


@dataclass(frozen=True)
class Row:
    """One line of a table: images a second, of time and of its main thread's CPU time; ratios of Assay's to them."""

    name: str
    rate: float
    ratio: float
    interval: tuple[float, float]
    cpu_rate: float
    cpu_ratio: float
    cpu_interval: tuple[float, float]


@dataclass(frozen=True)
class Moment:
    """The end of an epoch: seconds since the epoch of the clock, and of CPU time of the main thread."""

    time: float
    cpu: float


def make_images(folder: Path, options: argparse.Namespace) -> None:
    """Smooth random pictures of ten classes as PNG files, as one .npz file, and as Assay's store."""
    from PIL import Image

    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", options.images), ("val", options.images // 8), ("test", 10)):
        labels = np.arange(count) % 10
        images = np.empty((count, options.size, options.size, 3), np.uint8)
        for index, label in enumerate(labels):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image = small.resize((options.size, options.size), Image.Resampling.BICUBIC)
            place = folder / "png" / split / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{index}.png")
            images[index] = np.asarray(image)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(folder / "images.npz", allow_pickle=False, **arrays)  # type: ignore[arg-type]
    settings = Data(source="folder", path=str(folder / "png"), image_size=options.size)
    prepare(settings, folder / "data", module_roots=[])


def model_of(options: argparse.Namespace) -> Model:
    if ":" not in options.model:
        return Model(source=f"torchvision:{options.model}")
    return Model(source=options.model, options={"width": 16} if options.model == "builtin:cnn" else {})


def check_networks(options: argparse.Namespace) -> None:
    """Everybody's network has as many parameters as Assay's; the process ends where one has not."""
    shape = (options.size, options.size, 3)
    ours = build(model_of(options), image_shape=shape, classes=10, seed=0, module_roots=[])
    others = {"bare loop": contenders_build(options.model, 10, options.size)}
    if options.timm is not None and ":" not in options.model:
        import timm

        others["timm"] = timm.create_model(options.timm_model or options.model, num_classes=10)
    count = sum(parameter.numel() for parameter in ours.parameters())
    for name, other in others.items():
        found = sum(parameter.numel() for parameter in other.parameters())
        if found != count:
            sys.exit(f"--model {options.model}: {name}'s network has {found} parameters, Assay's has {count}")


def assay(options: argparse.Namespace, folder: Path, augmentation: dict[str, object]) -> list[Moment]:
    """When the epochs ended, by the log; CPU time is what the samples of telemetry say of that moment."""
    optimizer = {"name": "sgd", "learning_rate": 0.05, "nesterov": False, "decay_norms_and_biases": True}
    settings = {
        "model": model_of(options).model_dump(mode="json"),
        "augmentation": augmentation,
        "training": {
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "optimizer": optimizer,
            "checkpoint_seconds": options.checkpoint_seconds,
        },
        "execution": {"device": options.device, "threads": options.threads},
    }
    with tempfile.TemporaryDirectory(dir=folder) as name:
        record = Path(name) / "train" / "record.json"
        command = [
            *(sys.executable, "-P", str(REPOSITORY / "workflow" / "scripts" / "train.py")),
            *("--experiment", "speed", "--arm", "a", "--seed", "0", "--settings", json.dumps(settings)),
            *("--manifest", str(folder / "data" / "manifest.json"), "--record", str(record)),
            *("--telemetry", "0.1"),
        ]
        follow(command, options, None)
        ends = [moment(event) for event in events(record.parent / "log.jsonl", "epoch")]
        samples = events(record.parent / "telemetry.jsonl", "sample")
    times, used = [moment(sample) for sample in samples], [sample["cpu"]["busy_s"] for sample in samples]
    return [Moment(end, float(np.interp(end, times, used))) for end in ends]


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, path.read_text().splitlines()) if event["event"] == kind]


def moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def follow(command: list[str], options: argparse.Namespace, marker: re.Pattern[str] | None) -> list[Moment]:
    """Run to the end on the CPUs that all contenders get; when the lines came that `marker` finds."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads),
        "PYTHONPATH": str(REPOSITORY / "src"),
        "PYTHONUNBUFFERED": "1",
    }
    cpus = sorted(os.sched_getaffinity(0))[-options.cpus :]
    process = subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )
    assert process.stdout is not None
    ends, said = [], []
    for line in process.stdout:
        said.append(line)
        if marker is not None and marker.search(line):
            used = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
            ends.append(Moment(time.time(), used))
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}:\n{''.join(said[-40:])}")
    return ends


def torchvision_options(options: argparse.Namespace, folder: Path, workers: int) -> list[str]:
    size, epochs = str(options.size), str(options.epochs)
    return [
        *("--data-path", str(folder / "png"), "--model", options.model, "--device", options.device),
        *("--batch-size", str(options.batch_size), "--epochs", epochs, "--workers", str(workers)),
        *(
            "--lr",
            "0.05",
            "--wd",
            "5e-4",
            "--lr-scheduler",
            "cosineannealinglr",
            "--interpolation",
            "bilinear",
        ),
        *("--train-crop-size", size, "--val-crop-size", size, "--val-resize-size", size),
        *("--output-dir", str(folder / "torchvision")),
    ]


def timm_options(options: argparse.Namespace, folder: Path, workers: int) -> list[str]:
    """Everything but the network's name; a file takes the colour jitter away, which no option can."""
    (folder / "timm.yaml").write_text("color_jitter: null\n")
    return [
        *("--config", str(folder / "timm.yaml"), "--data-dir", str(folder / "png"), "--val-split", "val"),
        *("--model", options.timm_model or options.model, "--num-classes", "10", "--device", options.device),
        *("--batch-size", str(options.batch_size), "--epochs", str(options.epochs), "--warmup-epochs", "0"),
        *("--input-size", "3", str(options.size), str(options.size), "--crop-pct", "1"),
        *("--interpolation", "bilinear", "--train-interpolation", "bilinear", "--smoothing", "0"),
        *("--opt", "momentum", "--lr", "0.05", "--weight-decay", "5e-4", "--workers", str(workers)),
        *("--output", str(folder), "--experiment", "timm", "--checkpoint-hist", "1"),
    ]


def contenders(
    options: argparse.Namespace, folder: Path, table: str
) -> dict[str, Callable[[], list[Moment]]]:
    scripts = {
        "timm": (options.timm, "train.py", timm_options),
        "torchvision": (options.torchvision, "references/classification/train.py", torchvision_options),
    }
    augmentation = {"crop_padding": 4} if table == "memory" else {"resized_crop": [0.08, 1.0]}
    found: dict[str, Callable[[], list[Moment]]] = {
        "assay, train stage": lambda: assay(options, folder, augmentation | {"horizontal_flip": 0.5})
    }
    mine = [sys.executable, str(REPOSITORY / "benchmarks" / "contenders.py")]
    shared = [
        *("--images", str(folder / "images.npz"), "--model", options.model, "--device", options.device),
        *("--batch-size", str(options.batch_size), "--epochs", str(options.epochs)),
    ]
    if table == "memory":
        found["bare loop, no log, no checkpoint"] = lambda: follow(
            [*mine, "bare", *shared], options, EPOCH_ENDS["bare"]
        )
    for name, (checkout, path, arguments) in scripts.items():
        if checkout is None or ":" in options.model:
            continue
        script = checkout.resolve() / path
        if not script.is_file():
            raise SystemExit(
                f"--{name} {checkout}: there is no {path} in it; give a checkout of the repository"
            )
        for workers in [0] if table == "memory" else options.workers:
            label = f"{name} train.py, " + ("tensors" if table == "memory" else f"PNG, {workers} workers")
            before = [*mine, name, *shared, "--script", str(script), "--"]
            command = before if table == "memory" else [sys.executable, str(script)]
            command = [*command, *arguments(options, folder, workers)]
            found[label] = lambda c=command, n=name: follow(c, options, EPOCH_ENDS[n])  # type: ignore[misc]
    return found


def measure(options: argparse.Namespace, folder: Path, table: str) -> list[Row]:
    """Assay first; the others by their rate."""
    runs = contenders(options, folder, table)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    cpu_rates: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    images = options.images // options.batch_size * options.batch_size * (options.epochs - 1)
    for number in range(options.rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            ends = runs[name]()
            if len(ends) != options.epochs:
                sys.exit(f"{name}: said {len(ends)} times that it had validated, not {options.epochs} times")
            rates[name].append(images / (ends[-1].time - ends[0].time))
            cpu_rates[name].append(images / (ends[-1].cpu - ends[0].cpu))
            told = f"{rates[name][-1]:.1f} images/s, {cpu_rates[name][-1]:.1f} per CPU second"
            print(f"{table}, round {number + 1}: {name}: {told}", file=sys.stderr)
    rows = [
        Row(name, *compared(rates[names[0]], rates[name]), *compared(cpu_rates[names[0]], cpu_rates[name]))
        for name in names
    ]
    return [rows[0], *sorted(rows[1:], key=lambda row: -row.rate)]


def compared(ours: list[float], theirs: list[float]) -> tuple[float, float, tuple[float, float]]:
    """Their median; ratio of our median to it; its interval."""
    middle = statistics.median(theirs)
    return middle, statistics.median(ours) / middle, spread(ours, theirs)


def spread(ours: list[float], theirs: list[float], resamples: int = 10_000) -> tuple[float, float]:
    """95% percentile bootstrap of the ratio of medians; rounds are drawn, with what both did in them."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(ours), (resamples, len(ours)))
    ratios = np.median(np.array(ours)[drawn], axis=1) / np.median(np.array(theirs)[drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timm", type=Path, metavar="FOLDER", help="checkout of pytorch-image-models")
    parser.add_argument("--torchvision", type=Path, metavar="FOLDER", help="checkout of torchvision")
    parser.add_argument(
        "--model", default="resnet18", help="torchvision's name, or builtin:NAME, which the references lack"
    )
    parser.add_argument("--timm-model", help="timm's name of the same network, where it differs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--images", type=int, default=1024, help="of an epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4, help="the first is warm-up")
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0, help="between Assay's checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=1, help="that a contender may use, with all it starts")
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="of the references' loaders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tables", nargs="+", choices=["files", "memory"], default=["files", "memory"])


def described(options: argparse.Namespace) -> str:
    return (
        f"{options.model}, {options.size} x {options.size}, batch {options.batch_size}, fp32, {options.device}, "
        f"{options.threads} threads on {options.cpus} CPUs, {options.rounds} rounds of {options.epochs - 1} epochs"
    )


def print_table(table: str, rows: list[Row], options: argparse.Namespace) -> None:
    print(f"\n{table}: {described(options)}")
    print(f"{'contender':<36}{'images/s':>10}{'assay / it':>26}{'/ CPU s':>11}{'assay / it':>26}")
    for row in rows:
        wall, cpu = shown(row.ratio, row.interval), shown(row.cpu_ratio, row.cpu_interval)
        print(f"{row.name:<36}{row.rate:>10,.1f}{wall:>26}{row.cpu_rate:>11,.1f}{cpu:>26}")


def shown(ratio: float, interval: tuple[float, float]) -> str:
    return f"{ratio:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def run(options: argparse.Namespace) -> dict[str, list[Row]]:
    """Each table that was asked for; a line for each reference that was not given."""
    if options.epochs < 2:
        raise SystemExit("--epochs: the first one is warm-up; write 2 or more")
    if options.images // 8 < 10 or options.images < options.batch_size:
        raise SystemExit("--images: too few; write 80 or more, and no fewer than --batch-size")
    for name in ("timm", "torchvision"):
        if getattr(options, name) is None:
            print(f"left out: {name}'s train.py; give its checkout by --{name} FOLDER")
    check_networks(options)
    with tempfile.TemporaryDirectory(prefix="assay-training-") as place:
        make_images(Path(place), options)
        return {table: measure(options, Path(place), table) for table in options.tables}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    options = parser.parse_args()
    for table, rows in run(options).items():
        print_table(table, rows, options)


if __name__ == "__main__":
    main()
