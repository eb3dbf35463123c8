"""Bundles of real, short trainings: whole, the same for the same run, and refused when they are not what they were."""

import importlib.util
import json
import os
import pickletools
import py_compile
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_bundle import MODELS, made_bundle, made_results
from safetensors.torch import load_file, save_file

from assay.cli import main
from assay.comparison.run import read_experiment
from assay.config.arm import Execution
from assay.data.batches import Batches
from assay.data.store import open_store
from assay.image.lock import ImageLock
from assay.models.build import build
from assay.records import Measurement, Record, sha256_file
from assay.release.bundle.choose import median_seed
from assay.release.bundle.contents import LOCK, environment
from assay.release.bundle.evidence import estimate
from assay.release.bundle.golden import golden_of, tolerance
from assay.release.bundle.manifest import IMAGE_LOCK, MANIFEST, Preprocessing, problem_of, version_of
from assay.release.bundle.network import Network
from assay.release.bundle.read import BundleError, read
from assay.release.bundle.reference import Reference, features_of, names, reference

ROOT = Path(__file__).parents[3]
OWN = """
import torch
from parts import width

def net(num_classes, in_channels, image_size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * image_size ** 2, width),
                               torch.nn.BatchNorm1d(width), torch.nn.Linear(width, num_classes))
"""


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest changed by somebody who knows how versions are made."""
    content = json.loads((folder / MANIFEST).read_bytes())
    change(content)
    content["version"] = version_of(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_the_model_gives_the_golden_scores_and_another_does_not(
    results: Path, bundle: Path, tmp_path: Path
) -> None:
    found = read(bundle)
    inputs, outputs = found.golden()
    scores = found.network()(torch.from_numpy(inputs)).numpy()
    assert outputs.shape == scores.shape == (32, 10)
    assert found.problem(scores) is None
    other = read(made_bundle(results, folder=tmp_path / "other", seed=(found.manifest.seed + 1) % 3))
    assert other.manifest.version != found.manifest.version
    assert "not the model" in str(found.problem(other.network()(torch.from_numpy(inputs)).numpy()))
    assert "not the model" in str(found.problem(np.where(scores == scores.max(), np.nan, scores)))
    assert "not [32, 10]" in str(found.problem(scores[:3]))


@pytest.mark.parametrize("what", ["mean", "std", "weights", "pixels", "classes"])
def test_what_makes_it_another_model_is_far_beyond_the_tolerance(bundle: Path, what: str) -> None:
    """A slight error of each kind, which no rounding explains."""
    found = read(bundle)
    network = found.network()
    inputs = torch.from_numpy(found.golden()[0])
    if what in ("mean", "std"):
        parameter = network.shift if what == "mean" else network.scale
        parameter.mul_(1.001)
    elif what == "weights":
        next(network.model.parameters()).mul_(1.001)
    elif what == "pixels":
        inputs = inputs.flip(2)
    scores = network(inputs)
    if what == "classes":
        scores = scores[:, [1, 0, *range(2, 10)]]
    assert "not the model" in str(found.problem(scores.numpy()))


def test_the_tolerance_follows_the_precision() -> None:
    def of(**settings: Any) -> float:
        return tolerance(1e-9, 4.0, Execution.model_validate(settings))

    assert of() == 2.0**-15, "64 roundings of 2^-23 of a score of 4"
    assert of(tf32=True, device="cuda") == of(precision="fp16") == 2.0**-5
    assert of(precision="bf16") == 2.0**-2
    assert tolerance(1e-3, 4.0, Execution()) == 2.0**-6, "ten times what was measured"


def test_the_same_run_gives_the_same_bundle(results: Path, bundle: Path, tmp_path: Path) -> None:
    again = made_bundle(results, folder=tmp_path / "again")
    files = [path.relative_to(bundle) for path in sorted(bundle.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert all((bundle / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert not [path for path in tmp_path.iterdir() if path.name != "again"], "nothing is left beside it"


def test_the_run_is_the_median_one_and_not_the_best(results: Path, bundle: Path) -> None:
    manifest = read(bundle).manifest
    scores = {int(seed): score for seed, score in manifest.chosen.scores.items()}
    assert (
        set(scores) == {0, 1, 2} and manifest.seed == sorted(scores, key=lambda seed: (scores[seed], seed))[1]
    )
    assert median_seed({0: 0.9, 1: 0.7, 2: 0.8, 3: 0.6}) == 1, "of two in the middle the lower"
    assert median_seed({5: 0.7, 1: 0.7, 2: 0.7}) == 1


def test_it_is_what_the_comparison_was_about(results: Path, bundle: Path) -> None:
    manifest = read(bundle).manifest
    comparison = json.loads((results / "comparison" / "comparison.json").read_bytes())
    assert manifest.verdict is not None and manifest.verdict.headline == comparison["headline"]
    assert manifest.verdict.metric == min(comparison["metrics"], key=lambda one: one["position"])["name"]
    assert [claim.metric for claim in manifest.verdict.claims] == ["accuracy"]
    assert manifest.estimate is None, "nothing was profiled, which is null and not 0"
    run = results / "runs" / "mlp" / f"seed-{manifest.seed}" / "train"
    assert sha256_file(bundle / "model.safetensors") == sha256_file(run / "model.safetensors")
    assert (bundle / "environment/requirements.txt").read_bytes() == (
        ROOT / "requirements/serve.txt"
    ).read_bytes()


def test_what_conda_is_given_names_no_host_and_only_what_is_locked(bundle: Path) -> None:
    conda = yaml.safe_load((bundle / "environment/environment.yml").read_bytes())
    assert set(conda) == {"name", "channels", "dependencies"}
    assert re.fullmatch(r"[a-z0-9][\w.-]*", conda["name"])
    assert all(re.fullmatch(r"[a-z0-9-]+", channel) for channel in conda["channels"]), "names, and no hosts"
    python, pip, locked = conda["dependencies"]
    assert (python, pip) == (f"python={sys.version_info[0]}.{sys.version_info[1]}", "pip")
    assert locked == {"pip": ["--require-hashes", "-r requirements.txt"]}
    lock = (bundle / "environment/requirements.txt").read_text()
    entries = [entry for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", lock) if "==" in entry]
    assert len(entries) > 40 and all("--hash=sha256:" in entry for entry in entries), "and it is beside it"
    assert "://" not in lock and "index-url" not in lock


def test_nothing_in_it_is_a_pickle_and_nothing_is_unpickled(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not content.startswith((b"PK", b"\x80")), path
            with pytest.raises(Exception):  # noqa: B017 (whatever it says of what is no pickle)
                list(pickletools.genops(content))
                raise AssertionError(f"{path} is a pickle")
            assert path.suffix in {".py", ".json", ".yaml", ".yml", ".txt", ".safetensors"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, refuse)
    read(bundle).network()


@pytest.mark.parametrize("side", [None, 12])
@pytest.mark.parametrize("channels_last", [False, True])
def test_preprocessing_gives_the_bits_that_the_model_was_trained_on(
    results: Path, side: int | None, channels_last: bool
) -> None:
    store = open_store(results / "data")
    execution = Execution(channels_last=channels_last)
    preprocessing = Preprocessing(mean=store.manifest.mean, std=store.manifest.std, image_size=side)
    split = store.split("validation")
    batches = Batches(
        split,
        batch_size=50,
        device="cpu",
        mean=preprocessing.mean,
        std=preprocessing.std,
        image_size=side,
        channels_last=channels_last,
    )
    expected = next(batches.sequential()).images
    found = Network(torch.nn.Identity(), preprocessing, execution).prepared(
        torch.from_numpy(np.array(split.images[:50])).float()
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "golden.safetensors",
        "reference.json",
        "code/assay/records.py",
        "environment/environment.yml",
    ],
)
def test_an_edited_or_missing_file_is_refused(copy: Path, name: str) -> None:
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}: was changed.*make the bundle again"):
        read(copy)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        read(copy)


def test_weights_that_change_after_they_were_checked_are_not_loaded(copy: Path) -> None:
    found = read(copy)
    save_file(
        {key: value + 1 for key, value in load_file(copy / "model.safetensors").items()},
        copy / "model.safetensors",
    )
    with pytest.raises(BundleError, match=r"model\.safetensors: was changed"):
        found.network()


def test_what_is_added_or_linked_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "code" / "__pycache__").mkdir()
    (copy / "code" / "__pycache__" / "x.pyc").write_bytes(b"bytecode of whoever ran it")
    read(copy)
    (copy / "code" / "sitecustomize.py").write_text("print('harm')")
    with pytest.raises(BundleError, match=r"sitecustomize\.py: is not in bundle\.json"):
        read(copy)
    (copy / "code" / "sitecustomize.py").unlink()
    outside = tmp_path / "weights"
    shutil.move(copy / "model.safetensors", outside)
    (copy / "model.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match=r"model\.safetensors: is a link"):
        read(copy)
    (copy / "model.safetensors").unlink()
    os.mkfifo(copy / "model.safetensors")
    with pytest.raises(BundleError, match=r"model\.safetensors: is a link or no plain file"):
        read(copy)


@pytest.mark.parametrize(
    "place",
    [
        "../secret",
        "/etc/passwd",
        "code/../../secret",
        "code//x",
        "a\\b",
        ".hidden",
        "x\ny",
        "",
        "bundle.json",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(copy: Path, place: str) -> None:
    assert problem_of(place) and problem_of("code/modules/größe.py") is None
    rewritten(copy, lambda content: content["files"].update({place: "0" * 64}))
    with pytest.raises(BundleError, match=r"bundle\.json: files"):
        read(copy)


def test_a_manifest_that_was_edited_or_cut_is_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / MANIFEST
    whole = path.read_text()
    path.write_text(whole.replace('"arm": "mlp"', '"arm": "cnn"'))
    with pytest.raises(BundleError, match="version: is not the digest"):
        read(copy)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="make the bundle again"):
        read(copy)
    path.write_text(whole)
    for change, words in [
        (lambda content: content["files"].pop("model.safetensors"), r"no model\.safetensors"),
        (lambda content: content["input"].update(shape=[0, 8, 1]), "1 or more"),
        (lambda content: content["preprocessing"].update(mean=[0.5, 0.5]), "one number for each"),
        (lambda content: content.update(schema_version=2), "schema_version"),
    ]:
        rewritten(copy, change)
        with pytest.raises(BundleError, match=words):
            read(copy)
        path.write_text(whole)
    with pytest.raises(BundleError, match="is no folder of a bundle"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="no such bundle"):
        read(tmp_path / "empty")


def test_weights_or_images_of_another_shape_are_refused(copy: Path) -> None:
    def replaced(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, copy / name)
        digest = sha256_file(copy / name)
        rewritten(copy, lambda content: content["files"].update({name: digest}))

    replaced("model.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(BundleError, match="do not fit builtin:mlp"):
        read(copy).network()
    replaced("golden.safetensors", {"inputs": torch.zeros(1), "outputs": torch.zeros(1)})
    with pytest.raises(BundleError, match=r"golden\.safetensors: holds"):
        read(copy).golden()
    (copy / "golden.safetensors").write_bytes(b"\xff" * 100)
    rewritten(
        copy,
        lambda content: content["files"].update(
            {"golden.safetensors": sha256_file(copy / "golden.safetensors")}
        ),
    )
    with pytest.raises(BundleError, match="is not a whole safetensors file"):
        read(copy).golden()


def test_a_model_that_is_not_the_same_twice_is_refused() -> None:
    network = Network(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2), _Noise()),
        Preprocessing(mean=[0.5], std=[0.5], image_size=None),
        Execution(),
    )
    with pytest.raises(ValueError, match="does not give the same image the same scores"):
        golden_of(network, np.zeros((4, 2, 2, 1), np.uint8))
    network.model[2] = torch.nn.Identity()
    golden, tensors = golden_of(network, np.zeros((4, 2, 2, 1), np.uint8))
    assert golden.reference == "float64" and tensors["outputs"].shape == (4, 2)
    network.model[1].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="are not finite"):
        golden_of(network, np.zeros((4, 2, 2, 1), np.uint8))


class _Noise(torch.nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores + torch.rand_like(scores)


def test_two_that_bundle_at_once_leave_one_whole(results: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from assay.release.bundle.make import Asked, make\n"
        "print(make(Asked(results=Path(sys.argv[1]), arm='mlp'), Path(sys.argv[2])).version)"
    )
    command = [sys.executable, "-P", "-c", script, str(results), str(tmp_path / "bundle")]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    both = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {maker.communicate()[0].strip() for maker in both}
    assert said == {read(tmp_path / "bundle").manifest.version}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_reference_is_that_of_the_training_images(results: Path, bundle: Path) -> None:
    found = Reference.model_validate_json((bundle / "reference.json").read_bytes())
    images = open_store(results / "data").split("train").images
    columns = features_of(images, found.pixels)
    assert list(found.features) == names(found.pixels) and found.count == len(images)
    for place, feature in enumerate(found.features.values()):
        values = columns[:, place]
        assert sum(feature.counts) == len(values) and all(feature.counts)
        assert feature.quantiles[0] == values.min() and feature.quantiles[100] == values.max()
        assert feature.mean == pytest.approx(values.mean())
        assert len(feature.counts) == len(feature.edges) + 1 and feature.edges == sorted(set(feature.edges))
    assert sum(found.predictions.class_shares) == pytest.approx(1)
    assert columns[:, 0] == pytest.approx(images.reshape(len(images), -1).mean(1), rel=1e-6)


def test_a_constant_feature_is_one_bin() -> None:
    same = np.full((20, 2, 2, 1), 7, np.uint8)
    found = reference(same, np.full((5, 2), 0.5))
    assert found.pixels == [] and found.features["mean"].counts == [20] and found.features["mean"].edges == []
    assert found.predictions.class_shares == [1.0, 0.0]


def test_a_bundle_with_modules_of_ones_own_runs_without_the_checkout(tmp_path: Path) -> None:
    """In a process that sees the bundle's code alone, from another folder."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "nets.py").write_text(OWN)
    (own / "parts.py").write_text("width = 8\n")
    (own / "unrelated.py").write_text("raise RuntimeError('nobody asked for it')\n")
    results = made_results(
        tmp_path, models={"own": {"source": "nets:net"}, "mlp": MODELS["mlp"]}, seeds=1, roots=(own,)
    )
    folder = made_bundle(results, "own", tmp_path / "bundle")
    assert sorted(path.name for path in (folder / "code/modules").iterdir()) == ["nets.py", "parts.py"]
    shutil.rmtree(own)
    script = (
        "import sys, torch, assay; from pathlib import Path; from assay.release.bundle.read import read\n"
        "bundle = read(Path(sys.argv[1])); inputs, _ = bundle.golden()\n"
        "print(bundle.problem(bundle.network()(torch.from_numpy(inputs)).numpy()), assay.__file__)"
    )
    environment = os.environ | {"PYTHONPATH": str(folder / "code"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path / "digits",
    )
    assert done.stdout == f"None {folder}/code/assay/__init__.py\n", done.stderr


def test_bytecode_beside_a_bundles_modules_is_not_run(tmp_path: Path) -> None:
    """It has no checksum, and Python would take it for the source that has one."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "nets.py").write_text(OWN)
    (own / "parts.py").write_text("width = 8\n")
    results = made_results(
        tmp_path, models={"own": {"source": "nets:net"}, "mlp": MODELS["mlp"]}, seeds=1, roots=(own,)
    )
    folder = made_bundle(results, "own", tmp_path / "bundle")
    module = folder / "code/modules/parts.py"
    evil = tmp_path / "evil.py"
    evil.write_text("raise RuntimeError('bytecode was run')\n")
    compiled = Path(
        py_compile.compile(str(evil), cfile=importlib.util.cache_from_source(str(module)), doraise=True)
    )
    at, size = int(module.stat().st_mtime), module.stat().st_size
    header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, at, size)
    compiled.write_bytes(header + compiled.read_bytes()[len(header) :])
    script = (
        "import sys; from pathlib import Path; from assay.release.bundle.read import read\n"
        "{}read(Path(sys.argv[1])).network()"
    )
    for first, refused in (
        ("", False),
        ("sys.path.insert(0, sys.argv[1] + '/code/modules'); import parts\n", True),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", script.format(first), str(folder)], capture_output=True, text=True
        )
        assert ("bytecode was run" in done.stderr) is refused and (done.returncode == 0) is not refused, (
            done.stderr
        )


def test_modules_that_changed_since_the_training_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "changing.py").write_text(OWN.replace("from parts import width", "width = 4"))
    results = made_results(
        tmp_path, models={"own": {"source": "changing:net"}, "mlp": MODELS["mlp"]}, seeds=1, roots=(own,)
    )
    (own / "changing.py").write_text(OWN.replace("from parts import width", "width = 4  # changed"))
    with pytest.raises(ValueError, match=r"changing\.py: was changed since the run was trained"):
        made_bundle(results, "own", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_network_that_is_another_now_is_refused(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bundle would serve is not what was evaluated: here, an activation that has changed in the code."""

    def changed(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = build(*arguments, **options)
        return torch.nn.ModuleDict({}) if model is None else _Scaled(model)

    monkeypatch.setattr("assay.release.bundle.make.build", changed)
    with pytest.raises(ValueError, match="gives other predictions than were evaluated"):
        made_bundle(results, folder=tmp_path / "bundle")


class _Scaled(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = [model]

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        return self._model[0].load_state_dict(*arguments, **options)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self._model[0].to(images.dtype)(images) * 1.01
        return scores


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("runs/mlp/seed-1/train/model.safetensors", "is not what .*record.json tells of"),
        ("data/manifest.json", "not the data that the run was trained on|manifest"),
        ("runs/mlp/seed-1/evaluate/record.json", "no such record"),
        ("runs/mlp/seed-1/evaluate/predictions.parquet", "no predictions|Parquet"),
        ("experiment.yaml", "no resolved experiment"),
    ],
)
def test_a_run_that_is_not_whole_gives_no_bundle(
    results: Path, tmp_path: Path, damage: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = tmp_path / "results"
    shutil.copytree(results, spoiled, ignore=shutil.ignore_patterns("bundle"))
    path = spoiled / damage
    if damage.endswith(("safetensors", "manifest.json")):
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=words):
        made_bundle(spoiled, seed=1)
    assert main(["release", "bundle", str(spoiled), "--arm", "mlp", "--seed", "1"]) == 2
    assert not (spoiled / "bundle" / "mlp").exists() and "\n" not in capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (
            "train",
            lambda content: content["spec"]["model"]["options"].update(hidden=[99]),
            "model: is not that of",
        ),
        ("evaluate", lambda content: content.update(weights_sha256="0" * 64), "were not evaluated"),
        ("evaluate", lambda content: content.update(outcome="failed"), "were not evaluated"),
    ],
)
def test_what_does_not_belong_together_gives_no_bundle(
    results: Path, tmp_path: Path, place: str, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    spoiled = tmp_path / "results"
    shutil.copytree(results, spoiled, ignore=shutil.ignore_patterns("bundle"))
    path = spoiled / f"runs/mlp/seed-1/{place}/record.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        made_bundle(spoiled, seed=1)
    assert not (spoiled / "bundle" / "mlp").exists()


def test_the_lock_of_another_image_than_the_run_s_is_refused(results: Path, tmp_path: Path) -> None:
    record = Record.read(results / "runs/mlp/seed-1/train/record.json")
    lock = tmp_path / "lock.json"
    ImageLock(
        name="an image",
        base_name="base",
        base_tag=None,
        base_digest="sha256:0",
        recipe_sha256="0",
        locks_sha256={},
        sif_sha256="a" * 64,
        sif_bytes=1,
        content_sha256="0",
        content_files=1,
        python="3.11.7",
        packages={},
        system_packages={},
        built="2026-11-21T00:00:00Z",
        built_with="a test",
    ).write(lock)

    def of(image: dict[str, str] | None) -> dict[str, bytes]:
        own = record.environment.model_copy(update={"image": image})
        return environment("x", record.model_copy(update={"environment": own}), LOCK, lock)

    for image in ({"sif_sha256": "a" * 64}, None):
        assert of(image)[IMAGE_LOCK] == lock.read_bytes()
    with pytest.raises(ValueError, match=r"lock\.json: is of another image than the run's \(bbb"):
        of({"sif_sha256": "b" * 64})


def test_what_serving_will_cost_is_of_blocks_that_count_and_null_where_one_has_no_value(
    results: Path, tmp_path: Path
) -> None:
    experiment = read_experiment(results / "experiment.yaml")
    trained = Record.read(results / "runs/mlp/seed-1/train/record.json")
    assert estimate(experiment, tmp_path, "mlp") is None

    def block(number: int, outcome: str, latency: float, **others: float) -> None:
        values = {"latency_ms@1": latency, **others}
        metrics = {name: Measurement(unit="ms", value=value) for name, value in values.items()}
        made = trained.model_copy(update={"stage": "profile", "outcome": outcome, "metrics": metrics})
        made.write(tmp_path / f"profile/block-{number}/mlp/record.json")

    block(0, "completed", 1.0, peak_memory_mb=7.0)
    block(1, "failed", 100.0, peak_memory_mb=100.0)
    found = estimate(experiment, tmp_path, "mlp")
    assert found is not None
    assert (found.blocks, found.latency_ms["1"].median_ms, found.peak_memory_mb) == (1, 1.0, 7.0)
    block(1, "completed", 3.0)
    found = estimate(experiment, tmp_path, "mlp")
    assert found is not None
    assert (found.blocks, found.latency_ms["1"].median_ms, found.peak_memory_mb) == (2, 2.0, None)


def test_runs_that_did_not_complete_are_not_chosen(results: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "results"
    shutil.copytree(results, spoiled, ignore=shutil.ignore_patterns("bundle"))
    for seed in (0, 1):
        path = spoiled / f"runs/mlp/seed-{seed}/train/record.json"
        path.write_text(path.read_text().replace('"completed"', '"diverged"'))
    assert read(made_bundle(spoiled)).manifest.seed == 2
    with pytest.raises(ValueError, match="seed 0 did not complete"):
        made_bundle(spoiled, seed=0)
    path = spoiled / "runs/mlp/seed-2/train/record.json"
    path.write_text(path.read_text().replace('"completed"', '"out_of_memory"'))
    with pytest.raises(ValueError, match="no run completed"):
        made_bundle(spoiled)


def test_mistakes_name_what_to_write(results: Path, tmp_path: Path) -> None:
    for asked, words in [
        ({"arm": "cnn"}, "no arm 'cnn'; write one of mlp, wide"),
        ({"seed": 7}, "no seed 7; write one of 0, 1, 2"),
        ({"requirements": tmp_path / "none.txt"}, "cannot be read.*--requirements"),
    ]:
        with pytest.raises(ValueError, match=words):
            made_bundle(results, folder=tmp_path / "bundle", **asked)  # type: ignore[arg-type]
    (tmp_path / "loose.txt").write_text("einops==0.8\n")
    with pytest.raises(ValueError, match=r"einops==0\.8: has no hash"):
        made_bundle(results, folder=tmp_path / "bundle", requirements=tmp_path / "loose.txt")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is there and is no bundle"):
        made_bundle(results, folder=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_secret_of_the_environment_does_not_get_in(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "Which is the question?")
    spoiled = tmp_path / "results"
    shutil.copytree(results, spoiled, ignore=shutil.ignore_patterns("bundle"))
    path = spoiled / "experiment.yaml"
    path.write_text(path.read_text().replace("Which?", "Which is the question?"))
    with pytest.raises(ValueError, match="holds the value of the environment variable SERVICE_TOKEN"):
        made_bundle(spoiled)


def test_the_loader_needs_only_what_the_lock_of_a_server_has(bundle: Path) -> None:
    """Every distribution that is imported, asked in a process of its own."""
    script = (
        "import sys, torch; from pathlib import Path; from assay.release.bundle.read import read\n"
        "bundle = read(Path(sys.argv[1])); bundle.network()(torch.from_numpy(bundle.golden()[0]))\n"
        "import importlib.metadata as m; by = m.packages_distributions()\n"
        "print(*sorted({d.lower().replace('_', '-') for n in {n.partition('.')[0] for n in sys.modules} for d in by.get(n, [])}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(bundle)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    locked = {
        line.partition("==")[0]
        for line in (ROOT / "requirements/serve.txt").read_text().splitlines()
        if "==" in line
    }
    found = set(done.stdout.split())
    assert {"torch", "safetensors", "pydantic", "numpy"} <= found
    # PyTorch takes NVIDIA's library for its driver where it is there, and does without where not.
    assert found - locked - {"assay", "nvidia-ml-py"} == set()
