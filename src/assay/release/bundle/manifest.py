"""`bundle.json`: what a bundle is, and the checksum of every file in it."""

import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from assay.config.arm import Execution, Model
from assay.records import Typed, canonical_json, sha256_text

MANIFEST = "bundle.json"
WEIGHTS, GOLDEN, REFERENCE = "model.safetensors", "golden.safetensors", "reference.json"
EXPERIMENT = "experiment.yaml"
CODE, MODULES = "code", "code/modules"
"""Assay's package lies in `code/assay`; the user's modules lie to each other in `code/modules` as they did."""
REQUIREMENTS = "environment/requirements.txt"
CONDA = "environment/environment.yml"
IMAGE_LOCK = "environment/image.lock.json"
NEEDED = (WEIGHTS, GOLDEN, REFERENCE, EXPERIMENT, REQUIREMENTS, CONDA)
VERSION_DIGITS = 16
VERSION = re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}")
_PART = re.compile(r"\w[\w.+-]*")


class Input(Typed):
    """What the model takes."""

    shape: tuple[int, int, int] = Field(description="Height, width, channels; all at least 1.")
    low: Literal[0] = 0
    high: Literal[255] = 255
    """Values are pixels as stored; the bundle's own preprocessing normalises them."""

    @field_validator("shape")
    @classmethod
    def _positive(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 1:
            raise ValueError(f"{list(shape)}: sides and channels are 1 or more")
        return shape

    @property
    def size(self) -> int:
        """Numbers in one sample."""
        height, width, channels = self.shape
        return height * width * channels


class Preprocessing(Typed):
    """From pixels to what the network sees: (value / 255 - mean) / std per channel, then resized."""

    mean: list[float]
    std: list[float]
    image_size: int | None = Field(description="Side of the square it is resized to; null: as stored.")


class Golden(Typed):
    """How far scores for the golden inputs may be from the expected ones."""

    count: int
    tolerance: float = Field(gt=0, description="Largest |score - expected| that is no other model's.")
    measured: float = Field(
        description="Largest such deviation when the bundle was made, over batch sizes, in the arm's own precision."
    )
    reference: Literal["float64", "float32"] = Field(description="Arithmetic of the expected outputs.")
    scale: float = Field(description="Largest |expected|.")


class Chosen(Typed):
    """Why it is this seed's run."""

    rule: str
    scores: dict[str, float] = Field(description="Validation accuracy of the completed runs by seed.")


class Claim(Typed):
    """The offline verdict on one metric: this arm against another."""

    metric: str
    arm: str
    baseline: str
    verdict: str
    sentence: str
    estimate: float | None
    low: float | None
    high: float | None


class Verdict(Typed):
    """What the comparison found."""

    headline: str
    metric: str | None = Field(
        default=None,
        description="That the headline is about, the experiment's first; null: an older bundle's.",
    )
    contract_valid: bool
    claims: list[Claim]


class Latency(Typed):
    """Of inference, as profiled: the median over blocks of each block's median."""

    median_ms: float | None
    p95_ms: float | None = Field(description="Null where a block has too few samples for it.")


class Estimate(Typed):
    """What serving will cost, as far as it was measured. Null: it was not."""

    device: str
    blocks: int
    latency_ms: dict[str, Latency] = Field(description="By batch size.")
    peak_memory_mb: float | None = Field(description="With training steps, where the profile took any.")
    model_size_mb: float | None
    parameters: int | None


class Source(Typed):
    """The run that the weights are from."""

    weights_sha256: str
    data_sha256: str
    commit: str | None
    python: str
    packages: dict[str, str]
    image: dict[str, str] | None


class Manifest(Typed):
    """`bundle.json`."""

    schema_version: Literal[1] = 1
    name: str = Field(description="EXPERIMENT-ARM.")
    version: str = Field(description=f"First {VERSION_DIGITS} digits of the SHA-256 over all that is here.")
    assay: str
    experiment: str
    arm: str
    seed: int
    chosen: Chosen
    model: Model
    execution: Execution
    preprocessing: Preprocessing
    input: Input
    classes: list[str] = Field(min_length=1)
    golden: Golden
    verdict: Verdict | None = Field(description="Null: nothing was compared.")
    estimate: Estimate | None = Field(description="Null: nothing was profiled.")
    source: Source
    files: dict[str, str] = Field(description="SHA-256 by path, of every file but this one.")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for place in files:
            if problem := problem_of(place):
                raise ValueError(f"{place!r}: {problem}")
        return files

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        if lacking := [name for name in NEEDED if name not in self.files]:
            raise ValueError(f"files: no {lacking[0]}")
        channels = self.input.shape[2]
        if not len(self.preprocessing.mean) == len(self.preprocessing.std) == channels:
            raise ValueError(f"preprocessing: mean and std have one number for each of {channels} channels")
        if self.version != version_of(self.model_dump(mode="json")):
            raise ValueError("version: is not the digest of what stands here")
        return self


def problem_of(place: str) -> str | None:
    """Why a path may not stand in a bundle; None: it may."""
    path = PurePosixPath(place)
    if path.is_absolute() or not path.parts or path.as_posix() != place:
        return "is no plain relative path"
    if not all(_PART.fullmatch(part) for part in path.parts):
        return "names of files and folders have letters, digits and _.+- alone, and begin with a letter, digit or _"
    return "is the manifest itself" if place == MANIFEST else None


def version_of(content: dict[str, Any]) -> str:
    """Of a manifest as plain builtins, whatever its `version` says."""
    rest = {name: value for name, value in content.items() if name != "version"}
    return sha256_text(canonical_json(rest))[:VERSION_DIGITS]
