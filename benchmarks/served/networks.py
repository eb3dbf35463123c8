"""The two networks that are served, as bundles and as plain networks for the servers they are compared with."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

CLASSES = 10
KINDS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "cnn": ((32, 32, 3), {"source": "builtin:cnn"}),
    "mlp": ((8, 8, 1), {"source": "builtin:mlp", "options": {"hidden": [64]}}),
}
"""Height, width, channels, and the model of an experiment file. 94,762 and 4,810 parameters."""


class Served(nn.Module):
    """What people write: normalise, put channels first, call the network. Flat float [N, H·W·C] to scores [N, classes]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        from assay.config.arm import Model
        from assay.models.build import build

        self.shape, model = KINDS[kind]
        self.network = build(Model.model_validate(model), image_shape=self.shape, classes=CLASSES, seed=1)
        self.eval()

    def forward(self, values: Tensor) -> Tensor:
        images = values.view(-1, *self.shape).permute(0, 3, 1, 2) / 255
        scores: Tensor = self.network((images - 0.5) / 0.25)
        return scores


def bundle(kind: str, folder: Path) -> Path:
    """The same network with the same weights as a bundle: of no experiment, but whole."""
    import numpy as np
    from safetensors.torch import save

    from assay.config.arm import Execution, Model
    from assay.records import sha256_bytes
    from assay.release.bundle.folder import publish
    from assay.release.bundle.golden import golden_of
    from assay.release.bundle.manifest import (
        GOLDEN,
        NEEDED,
        WEIGHTS,
        Chosen,
        Input,
        Manifest,
        Preprocessing,
        Source,
        version_of,
    )
    from assay.release.bundle.network import Network

    shape, model = KINDS[kind]
    network = Served(kind).network
    channels = shape[2]
    preprocessing = Preprocessing(mean=[0.5] * channels, std=[0.25] * channels, image_size=None)
    images = np.random.default_rng(1).integers(0, 256, (32, *shape), dtype=np.uint8)
    golden, tensors = golden_of(Network(network, preprocessing, Execution(device="cpu")), images)
    files = dict.fromkeys(NEEDED, b"none: made for a benchmark\n")
    files |= {WEIGHTS: save(network.state_dict()), GOLDEN: save(tensors)}
    plain: dict[str, Any] = {
        "name": f"benchmark-{kind}",
        "assay": "0",
        "experiment": "benchmark",
        "arm": kind,
        "seed": 1,
        "chosen": Chosen(rule="none", scores={}),
        "model": Model.model_validate(model),
        "execution": Execution(device="cpu"),
        "preprocessing": preprocessing,
        "input": Input(shape=shape),
        "classes": [str(number) for number in range(CLASSES)],
        "golden": golden,
        "verdict": None,
        "estimate": None,
        "source": Source(
            weights_sha256=sha256_bytes(files[WEIGHTS]),
            data_sha256="0" * 64,
            commit=None,
            python="",
            packages={},
            image=None,
        ),
        "files": {place: sha256_bytes(content) for place, content in sorted(files.items())},
    }
    drafted = Manifest.model_construct(schema_version=1, version="", **plain)
    content = drafted.model_dump(mode="json")
    manifest = Manifest.model_validate(content | {"version": version_of(content)})
    publish(folder, files, manifest)
    return folder


def threads(count: int = 1) -> None:
    torch.set_num_threads(count)
