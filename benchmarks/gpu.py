"""What the GPU at hand shows: two networks in several arithmetics, energy against power, and whether the gates held.

    python benchmarks/gpu.py [--blocks 2] [--seconds 3] >> docs/gpu.md
    python benchmarks/gpu.py --small                        # the same way through on any machine, in minutes

Profiles ResNet-50 and EfficientNet-B3 on random images in fp32, bf16 and compiled, and trains each for some steps, all by the
workflow itself; then several trainings of a small network that share it, against one after another (`sharing.py`). Prints a
section of Markdown with date, device and versions; its numbers are of this machine. What the sampler costs is
`benchmarks/telemetry.py`'s to say.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import sharing
import torch
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from assay.records import Record  # noqa: E402

IMAGES = """
import numpy as np

def random(count, side):
    drawn = np.random.default_rng(0)
    images = drawn.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return images, np.arange(count) % 10
"""
NETWORKS = {"resnet50": "torchvision:resnet50", "efficientnet-b3": "torchvision:efficientnet_b3"}
SMALL = {"cnn": "builtin:cnn", "resnet": "builtin:resnet-small"}
ARITHMETIC: dict[str, dict[str, object]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16", "channels_last": True},
    "bf16-compiled": {"precision": "bf16", "channels_last": True, "compile": True},
}
SHOWN = {
    "latency_ms": "latency, batch of 1 (ms)",
    "throughput": "throughput (images/s)",
    "training_throughput": "training (images/s)",
    "flops_utilization": "FLOPs utilisation",
    "peak_memory_mb": "peak memory (MiB)",
    "cold_start_s": "cold start (s)",
    "compile_s": "compilation (s)",
}


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    networks, side, count = (SMALL, 32, 640) if options.small else (NETWORKS, 288, 3200)
    arithmetic = {"fp32": ARITHMETIC["fp32"]} if options.small else ARITHMETIC
    arms = {
        f"{network}-{name}": {"model": {"source": source}, "execution": dict(settings)}
        for network, source in networks.items()
        for name, settings in arithmetic.items()
    }
    return {
        "name": "gpu",
        "question": "What does this GPU show?",
        "factors": ["model", "execution"],
        "arms": arms,
        "data": {"source": "images:random", "options": {"count": count, "side": side}},
        "seeds": 1,
        "training": {"epochs": 3, "batch_size": 64},
        "execution": {
            "device": "auto" if options.small else "cuda",
            "deterministic": False,
            "threads": 1 if options.small else 4,
        },
        "metrics": ["accuracy", "latency_ms", "throughput"],
        "profile": {
            "blocks": options.blocks,
            "batch_sizes": [1, 8] if options.small else [1, 32, 128],
            "seconds": options.seconds,
            "traces": False,
        },
    }


def measured(options: argparse.Namespace, folder: Path) -> tuple[list[Record], list[Record]]:
    """Records of the profile and of the trainings, by the workflow."""
    (folder / "images.py").write_text(IMAGES)
    asked = experiment(options)
    (folder / "gpu.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    results = folder / "results" / "gpu"
    profiles = [
        results / "profile" / f"block-{block}" / arm / "record.json"
        for block in range(options.blocks)
        for arm in asked["arms"]
    ]
    trainings = [results / "runs" / arm / "seed-0" / "train" / "record.json" for arm in asked["arms"]]
    targets = [str(path.relative_to(folder)) for path in (*profiles, *trainings)]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", "gpu.yaml", "--cores", "all", "--keep-going", *targets]
    subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    return read(profiles), read(trainings)


def read(paths: Iterable[Path]) -> list[Record]:
    return [Record.read(path) for path in paths if path.exists()]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def costs(profiles: list[Record]) -> list[str]:
    """Per arm the median over blocks that count."""
    lines = [row("arm", *SHOWN.values(), "blocks"), row("---", *["--:" for _ in SHOWN], "--:")]
    for arm in dict.fromkeys(record.arm or "" for record in profiles):
        own = [record for record in profiles if record.arm == arm]
        valid = [record for record in own if record.outcome == "completed"]
        found = [
            [one.metrics[name].value for one in valid if name in one.metrics and one.metrics[name].value is not None]
            for name in SHOWN
        ]  # fmt: skip
        cells = [number(median(values) if values else None) for values in found]
        lines.append(row(arm, *cells, f"{len(valid)} of {len(own)}"))
    return lines


def gates(profiles: list[Record]) -> list[str]:
    """How often each gate held, tripped and was not measured, over all blocks and earlier attempts."""
    found: dict[str, dict[str, int]] = {}
    blocks = {record.block: record for record in profiles}
    for record in blocks.values():
        for gate in record.details.get("gates", []):
            counts = found.setdefault(gate["name"], {})
            counts[gate["status"]] = counts.get(gate["status"], 0) + 1
    rejected = sum(len(record.details.get("rejected", [])) for record in blocks.values())
    lines = [row("gate", "blocks"), row("---", "---")]
    lines += [row(f"`{name}`", told(counts)) for name, counts in found.items()]
    return [*lines, "", f"Attempts that were rejected and repeated: {rejected}."]


def told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in counts.items())


def energy(trainings: list[Record]) -> list[str]:
    """Of each training the counter against integrated power."""
    lines = [row("training", "joules", "source", "integrated power (J)", "apart", "seconds", "held down by")]
    lines.append(row("---", "--:", "---", "--:", "--:", "--:", "---"))
    for record in trainings:
        for gpu in record.telemetry.gpus if record.telemetry else []:
            taken = gpu.energy
            if taken is None:
                continue
            apart = "–" if taken.disagreement is None else f"{taken.disagreement:.1%}"
            reasons = ", ".join(f"{name} {share:.0%}" for name, share in gpu.clock_reasons.items() if share)
            cells = (number(taken.joules), taken.source or "–", number(taken.integrated_joules), apart)
            lines.append(row(record.arm or "", *cells, number(taken.seconds), reasons or "nothing"))
    return lines if len(lines) > 2 else ["No GPU was sampled beside a training."]


def shared(options: argparse.Namespace) -> list[str]:
    """What sharing the GPU brings to small trainings."""
    if not torch.cuda.is_available():
        return ["Several runs on one GPU: not measured, there is none."]
    options.device = "cuda"
    return sharing.lines(sharing.measure(options), options)


def section(profiles: list[Record], trainings: list[Record]) -> str:
    surroundings = profiles[0].environment
    device = surroundings.device
    name = (
        "no device" if device is None else " ".join(filter(None, (device.name or device.type, device.uuid)))
    )
    versions = {} if device is None else {"driver": device.driver, "CUDA": device.cuda}
    versions["torch"] = surroundings.packages.get("torch")
    about = ", ".join(f"{what} {value}" for what, value in versions.items() if value)
    failed = [
        f"- {record.stage} of {record.arm}: {record.outcome}: {record.message}"
        for record in (*profiles, *trainings)
        if record.outcome != "completed"
    ]
    warned = sorted({text for record in (*profiles, *trainings) for text in record.warnings})
    parts = [
        f"## {profiles[0].started[:10]}: {name} ({about})",
        "\n".join(costs(profiles)),
        "\n".join(gates(profiles)),
        "\n".join(energy(trainings)),
        "\n".join(["What did not complete:", "", *failed]) if failed else "All completed.",
        "\n".join(["Warnings:", "", *(f"- {text}" for text in warned)]) if warned else "No warnings.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="at most, per batch size and kind of training step"
    )
    sharing.add_options(parser)
    parser.add_argument("--small", action="store_true", help="two small networks, on a CPU too")
    parser.add_argument(
        "--keep", type=Path, help="folder for the results; without: a temporary one, removed at the end"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        profiles, trainings = measured(options, folder)
        if not profiles:
            sys.exit("no profile was made; the messages above say why")
        print(section(profiles, trainings))
        print("\n".join(shared(options)))


if __name__ == "__main__":
    main()
