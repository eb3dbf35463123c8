"""From a finished run to its bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import assay
from assay.archive.private import private
from assay.comparison.run import read_experiment
from assay.config.arm import Arm
from assay.data.store import MANIFEST as DATA_MANIFEST
from assay.data.store import Store, open_store
from assay.evaluation.table import FILE as PREDICTIONS
from assay.evaluation.table import read as read_predictions
from assay.models.build import build
from assay.records import Record, canonical_json, sha256_bytes, sha256_file
from assay.release.bundle.choose import choose
from assay.release.bundle.contents import LOCK, code, environment, modules
from assay.release.bundle.evidence import estimate, verdict
from assay.release.bundle.folder import publish
from assay.release.bundle.golden import golden_of, most_images
from assay.release.bundle.manifest import (
    EXPERIMENT,
    GOLDEN,
    REFERENCE,
    WEIGHTS,
    Golden,
    Input,
    Manifest,
    Preprocessing,
    Source,
    version_of,
)
from assay.release.bundle.network import Network
from assay.release.bundle.reference import reference, spread
from assay.sources import PACKAGE
from assay.training.execution import apply

MOST_PREDICTED = 2_000
"""Validation images that the reference of predictions is made from."""
_BATCH = 64


@dataclass(frozen=True)
class Asked:
    """What is bundled, from where and with what."""

    results: Path
    arm: str
    seed: int | None = None
    module_roots: Sequence[Path] | None = None
    """Where the user's modules lie; None: where the training found them."""
    requirements: Path = LOCK
    image_lock: Path | None = None


@dataclass(frozen=True)
class _Run:
    """The chosen run, read and checked."""

    seed: int
    settings: Arm
    record: Record
    store: Store
    weights: bytes
    evaluated: Path

    @property
    def preprocessing(self) -> Preprocessing:
        data = self.store.manifest
        return Preprocessing(mean=data.mean, std=data.std, image_size=self.settings.model.image_size)


def make(asked: Asked, output: Path) -> Manifest:
    """Write the bundle of an arm as the folder `output`, whole or not at all; an older one there is replaced.

    Raises: ValueError naming what is missing, damaged or does not belong together, and what to do.
    """
    results = asked.results
    if not results.is_dir():
        raise ValueError(f"{results}: is no folder of results; name one, e.g. results/digits")
    experiment = read_experiment(results / "experiment.yaml")
    seed, chosen, record = choose(experiment, results, asked.arm, asked.seed)
    run = _checked(results, asked.arm, seed, experiment.arms[asked.arm], record)
    roots, own_modules = modules(run.settings.model.source, record, asked.module_roots)
    golden, computed = _computed(run, roots)
    name = f"{experiment.name}-{asked.arm}"
    files = {
        **computed,
        EXPERIMENT: (results / "experiment.yaml").read_bytes(),
        **environment(name, record, asked.requirements, asked.image_lock),
        **own_modules,
    }
    secrets = private(PACKAGE.parents[1])
    for place, content in files.items():
        if not place.endswith(".safetensors"):
            secrets.check(place, content)
    files |= code()
    draft = Manifest.model_construct(
        name=name,
        version="",
        assay=assay.__version__,
        experiment=experiment.name,
        arm=asked.arm,
        seed=seed,
        chosen=chosen,
        model=run.settings.model,
        execution=run.settings.execution,
        preprocessing=run.preprocessing,
        input=Input(shape=run.store.manifest.image_shape),
        classes=run.store.manifest.classes,
        golden=golden,
        verdict=verdict(results, asked.arm),
        estimate=estimate(experiment, results, asked.arm),
        source=_source(record),
        files={place: sha256_bytes(content) for place, content in sorted(files.items())},
    )
    plain = draft.model_dump(mode="json")
    manifest = Manifest.model_validate(plain | {"version": version_of(plain)})
    publish(output, files, manifest)
    return manifest


def _computed(run: _Run, roots: Sequence[Path]) -> tuple[Golden, dict[str, bytes]]:
    """What the model itself has to say: weights, golden scores, and the reference for drift."""
    network, store = _network(run, roots), run.store
    test = store.split("test").images
    places = spread(len(test), most_images(int(np.prod(store.manifest.image_shape))))
    golden, tensors = golden_of(network, test[places])
    _compare_with_evaluation(run, places, tensors["outputs"], golden.tolerance)
    seen = reference(store.split("train").images, _probabilities(network, store.split("validation").images))
    return golden, {
        WEIGHTS: run.weights,
        GOLDEN: save_tensors(tensors),
        REFERENCE: seen.model_dump_json(indent=1).encode() + b"\n",
    }


def _source(record: Record) -> Source:
    assert record.weights_sha256 is not None and record.data_sha256 is not None, "it completed"
    return Source(
        weights_sha256=record.weights_sha256,
        data_sha256=record.data_sha256,
        commit=record.code.commit,
        python=record.environment.python,
        packages=record.environment.packages,
        image=record.environment.image,
    )


def _checked(results: Path, arm: str, seed: int, settings: Arm, record: Record) -> _Run:
    """Raises: ValueError where weights, data, settings and evaluation are not one run's."""
    folder = results / "runs" / arm / f"seed-{seed}"
    path = folder / "train" / WEIGHTS
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: no weights ({error.strerror}); run the experiment again") from None
    if sha256_bytes(weights) != record.weights_sha256:
        raise ValueError(f"{path}: is not what {folder}/train/record.json tells of; run the experiment again")
    store = open_store(results / "data")
    if sha256_file(results / "data" / DATA_MANIFEST) != record.data_sha256:
        raise ValueError(
            f"{results / 'data'}: are not the data that the run was trained on; run the experiment again"
        )
    if record.spec.get("model") != settings.model.model_dump(mode="json"):
        raise ValueError(
            f"{folder}/train/record.json: model: is not that of {results}/experiment.yaml; run the experiment again"
        )
    evaluated = Record.read(folder / "evaluate" / "record.json")
    if evaluated.outcome != "completed" or evaluated.weights_sha256 != record.weights_sha256:
        raise ValueError(
            f"{folder}/evaluate/record.json: these weights were not evaluated ({evaluated.outcome}); run the experiment again"
        )
    return _Run(seed, settings, record, store, weights, folder / "evaluate" / PREDICTIONS)


def _network(run: _Run, roots: Sequence[Path]) -> Network:
    """On the CPU: whether the release is served there or not, it is what every machine has."""
    settings, data = run.settings, run.store.manifest
    apply(settings.execution.model_copy(update={"device": "cpu", "cuda_graphs": False, "tf32": False}))
    model = build(
        settings.model,
        image_shape=data.image_shape,
        classes=len(data.classes),
        seed=run.seed,
        module_roots=roots,
    )
    model.load_state_dict(load_tensors(run.weights))
    layout = torch.channels_last if settings.execution.channels_last else torch.preserve_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    return Network(model, run.preprocessing, settings.execution).requires_grad_(False)


def _probabilities(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of an even spread of the images, [M, classes]."""
    places = spread(len(images), MOST_PREDICTED)
    found = []
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            scores = network(torch.from_numpy(np.array(images[places[start : start + _BATCH]])))
            found.append(torch.softmax(scores.double(), dim=1).numpy())
    return np.concatenate(found)


def _compare_with_evaluation(
    run: _Run, places: NDArray[np.int64], scores: torch.Tensor, tolerance: float
) -> None:
    """The golden scores are those that the verdict is about. Softmax moves by half of what scores move, at most.

    Raises: ValueError.
    """
    measured = read_predictions(run.evaluated).probabilities[places]
    expected = torch.softmax(scores.double(), dim=1).numpy()
    deviation = float(np.abs(measured - expected).max())
    if not deviation <= tolerance + 1e-6:
        raise ValueError(
            f"{run.evaluated}: the model gives other predictions than were evaluated (probabilities differ by "
            f"{deviation:.3g}): {canonical_json(run.settings.model.model_dump(mode='json'))} builds another network now; "
            "run the experiment again"
        )
