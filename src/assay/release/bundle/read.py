"""Reading a bundle, trusting nothing in it: what a server needs and no more.

Weights and golden inputs are safetensors, the rest is text. The one thing that runs is the user's own model code, below
`code/modules`, if the model is one of theirs.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.records import sha256_bytes, sha256_file
from assay.release.bundle.manifest import GOLDEN, MANIFEST, MODULES, WEIGHTS, Manifest

if TYPE_CHECKING:  # whoever only looks at bundles does without PyTorch
    import torch

    from assay.release.bundle.network import Network

ANEW = "make the bundle again: assay release bundle results/EXPERIMENT --arm NAME"


class BundleError(ValueError):
    """A bundle that is missing, incomplete, edited, or built to do harm."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file is what its manifest says."""

    folder: Path
    manifest: Manifest

    def golden(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs float32 [N, H, W, C], pixels from 0 to 255, and the expected scores float32 [N, classes].

        Raises: BundleError.
        """
        tensors = _tensors(self, GOLDEN)
        manifest = self.manifest
        shapes = {
            "inputs": (manifest.golden.count, *manifest.input.shape),
            "outputs": (manifest.golden.count, len(manifest.classes)),
        }
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != shapes:
            raise BundleError(f"{self.folder / GOLDEN}: holds {found}, not {shapes}; {ANEW}")
        return tensors["inputs"].float().numpy(), tensors["outputs"].float().numpy()

    def network(self, device: "str | torch.device" = "cpu") -> "Network":
        """The model with its preprocessing, ready to be called.

        Raises: BundleError for weights that do not fit; ValueError for a model that cannot be built here.
        """
        import torch

        from assay.models.build import build
        from assay.release.bundle.network import Network
        from assay.training.execution import place

        manifest = self.manifest
        with _without_bytecode():
            model = build(
                manifest.model,
                image_shape=manifest.input.shape,
                classes=len(manifest.classes),
                seed=manifest.seed,
                module_roots=[self.folder / MODULES],
            )
        try:
            model.load_state_dict(_tensors(self, WEIGHTS))
        except RuntimeError as error:
            raise BundleError(
                f"{self.folder / WEIGHTS}: these weights do not fit {manifest.model.source}: {error}; {ANEW}"
            ) from None
        network = Network(model, manifest.preprocessing, manifest.execution)
        place(network, manifest.execution, torch.device(device))
        return network.requires_grad_(False)

    def problem(self, scores: NDArray[Any]) -> str | None:
        """What is wrong with scores [N, classes] for the golden inputs; None: they are this model's."""
        _, expected = self.golden()
        if scores.shape != expected.shape:
            return f"scores for the golden inputs are {list(scores.shape)}, not {list(expected.shape)}"
        deviation = float(np.abs(scores.astype(np.float64) - expected).max())
        # Written so that NaN is a problem.
        if deviation <= self.manifest.golden.tolerance:
            return None
        return (
            f"scores for the golden inputs are off by {deviation:.3g}, and {self.manifest.golden.tolerance:.3g} "
            "is what arithmetic explains: not the model that was measured"
        )


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Modules are imported from their source, which has a checksum; bytecode beside it has none."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = os.devnull, True
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before


def read(folder: Path) -> Bundle:
    """Open a bundle, once each file's checksum was compared.

    Raises: BundleError naming the file, what is wrong with it and what to do instead.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"{folder}: is no folder of a bundle; {ANEW}")
    if path.is_symlink():
        raise BundleError(f"{path}: is a link; {ANEW}")
    try:
        manifest = Manifest.parse(path, "no such bundle", ANEW, BundleError)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {ANEW}") from None
    found = dict(_files(folder))
    for place_, sha256 in manifest.files.items():
        if place_ not in found:
            raise BundleError(f"{folder / place_}: is missing; {ANEW}")
        if (actual := _sha256(found[place_])) != sha256:
            raise BundleError(
                f"{folder / place_}: was changed: SHA-256 is {actual}, {MANIFEST} says {sha256}; {ANEW}"
            )
    if more := sorted(set(found) - set(manifest.files)):
        raise BundleError(f"{folder / more[0]}: is not in {MANIFEST}; remove it, or {ANEW}")
    return Bundle(folder, manifest)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files by their place, but for the manifest and bytecode that Python wrote.

    Raises: BundleError for a link, or what is neither file nor folder.
    """
    for path in sorted(folder.iterdir()):
        yield from _below(folder, path)


def _below(folder: Path, path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise BundleError(f"{path}: is a link or no plain file; remove it, or {ANEW}")
    if path.is_dir():
        if path.name != "__pycache__":
            for below in sorted(path.iterdir()):
                yield from _below(folder, below)
    elif path != folder / MANIFEST:
        yield path.relative_to(folder).as_posix(), path


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {ANEW}") from None


def _tensors(bundle: Bundle, name: str) -> "dict[str, torch.Tensor]":
    """The content of a file, once more compared with its checksum: it may have changed since `read`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = bundle.folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {ANEW}") from None
    if sha256_bytes(content) != bundle.manifest.files[name]:
        raise BundleError(f"{path}: was changed; {ANEW}")
    try:
        return load(content)
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a whole safetensors file: {error}; {ANEW}") from None
