"""What goes into an archive, and what never does."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from assay.archive.gather import Sources
from assay.archive.private import Private, private
from assay.archive.run import archive
from assay.records import sha256_bytes

SECRET = "s3cr3t-value-of-mine"


@pytest.fixture
def own(sources: Sources, tmp_path: Path) -> Sources:
    """Results that a test may change, with little code."""
    folder = tmp_path / "work"
    shutil.copytree(sources.results.parents[1], folder, copy_function=shutil.copy)
    code = tmp_path / "checkout"
    (code / "src" / "assay" / "__pycache__").mkdir(parents=True)
    (code / "Snakefile").write_text("rule all:\n")
    (code / "src" / "assay" / "__init__.py").write_text("")
    (code / "src" / "assay" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (code / "src" / "assay.egg-info").mkdir()
    (code / "src" / "assay.egg-info" / "SOURCES.txt").write_text("x")
    (code / "src" / "assay" / "archive").mkdir()
    (code / "src" / "assay" / "archive" / "run.py").write_text("")
    (code / ".git").mkdir()
    (code / ".git" / "config").write_text("url = https://me:password@example.org")
    return Sources(
        experiment_file=folder / "digits.yaml",
        overrides="{}",
        results=folder / "results" / "digits",
        logs=folder / "logs" / "digits",
        code=code,
        module_roots=[folder],
    )


def names(path: Path) -> set[str]:
    with ZipFile(path) as file:
        return set(file.namelist())


def content(path: Path, name: str) -> bytes:
    with ZipFile(path) as file:
        return file.read(name)


def change_experiment(sources: Sources, **sections: object) -> None:
    file = sources.results / "experiment.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | sections, sort_keys=False))


def test_the_same_inputs_give_the_same_bytes_wherever_and_whenever(own: Sources, tmp_path: Path) -> None:
    archive(sources=own, output=tmp_path / "one.zip")
    moved = tmp_path / "elsewhere" / "work"
    shutil.copytree(own.results.parents[1], moved)
    for path in moved.rglob("*"):
        path.touch()
    there = replace(
        own,
        experiment_file=moved / "digits.yaml",
        results=moved / "results" / "digits",
        logs=moved / "logs" / "digits",
        module_roots=[moved],
    )
    archive(sources=there, output=tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def leave_weights(run: Path, weights: bytes) -> None:
    """As a training does that leaves these."""
    (run / "train/model.safetensors").write_bytes(weights)
    for stage in ("train", "evaluate"):
        path = run / stage / "record.json"
        record = json.loads(path.read_bytes()) | {"weights_sha256": sha256_bytes(weights)}
        path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("log.jsonl", lambda text: text[: len(text) // 2], "is no line of a log"),
        (
            "log.jsonl",
            lambda text: text[: text[:-1].rfind(b"\n") + 1],
            "does not say that the training finished",
        ),
        (
            "model.safetensors",
            lambda _: b"edited",
            "weights_sha256: is not the checksum of model.safetensors",
        ),
    ],
)
def test_what_was_changed_after_its_run_goes_into_no_archive(
    file: str, change: Callable[[bytes], bytes], text: str, own: Sources, tmp_path: Path
) -> None:
    """`assay verify` would refuse it afterwards, when the run can no longer be made again."""
    leave_weights(own.results / "runs/mlp/seed-0", b"weights")
    archive(sources=own, output=tmp_path / "before.zip")
    path = own.results / "runs/mlp/seed-0/train" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=text) as caught:
        archive(sources=own, output=tmp_path / "a.zip")
    assert str(path.parent) in str(caught.value) and not (tmp_path / "a.zip").exists()


def test_all_that_a_claim_stands_on_is_in_it(own: Sources, tmp_path: Path) -> None:
    (own.results / "runs/mlp/seed-0/checkpoint").mkdir()
    (own.results / "runs/mlp/seed-0/checkpoint/last.pt").write_bytes(b"x")
    leave_weights(own.results / "runs/mlp/seed-0", b"weights")
    (own.results / "data/train.images.npy").write_bytes(b"images")
    (own.results / ".lock").write_text("1")
    shutil.copytree(own.results / "runs/mlp/seed-0", own.results / "runs/mlp/seed-9")
    shutil.copytree(own.results / "runs/mlp", own.results / "runs/former-arm")
    path = tmp_path / "a.zip"
    archive(sources=own, output=path)
    found = names(path)
    run = "results/digits/runs/mlp/seed-0"
    for name in (
        *(
            "README.md",
            "SHA256SUMS",
            "archive.json",
            "ro-crate-metadata.json",
            "experiment/digits.yaml",
            "code/Snakefile",
        ),
        *("code/src/assay/archive/run.py", "logs/digits/compare.log", "results/digits/experiment.yaml"),
        *(
            "results/digits/data/manifest.json",
            "results/digits/comparison/metrics.csv",
            "results/digits/report/index.html",
        ),
        *(f"{run}/train/record.json", f"{run}/train/log.jsonl", f"{run}/evaluate/predictions.parquet"),
        *("results/digits/profile/block-0/mlp/record.json", "results/digits/report/tables/metrics.tex"),
    ):
        assert name in found
    for word in (
        "checkpoint",
        "safetensors",
        ".npy",
        ".lock",
        "seed-9",
        "former-arm",
        ".git/",
        "pycache",
        "egg-info",
    ):
        assert not [name for name in found if word in name], word
    assert content(path, "experiment/digits.yaml").startswith(b"# as written")
    sums = dict(reversed(line.split("  ", 1)) for line in content(path, "SHA256SUMS").decode().splitlines())
    assert set(sums) == found - {"SHA256SUMS"}
    assert all(sha256_bytes(content(path, name)) == sums[name] for name in sums)


def test_weights_image_and_overrides_go_in_by_choice(own: Sources, tmp_path: Path) -> None:
    leave_weights(own.results / "runs/mlp/seed-0", b"weights")
    (tmp_path / "image.sif").write_bytes(b"image")
    change_experiment(own, archive={"weights": True, "image": True, "license": "CC-BY-4.0"})
    sources = replace(own, image=tmp_path / "image.sif", overrides='{"seeds":3}')
    archive(sources=sources, output=tmp_path / "a.zip")
    assert content(tmp_path / "a.zip", "results/digits/runs/mlp/seed-0/train/model.safetensors") == b"weights"
    assert content(tmp_path / "a.zip", "image/image.sif") == b"image"
    assert json.loads(content(tmp_path / "a.zip", "experiment/overrides.json")) == {"seeds": 3}
    graph = json.loads(content(tmp_path / "a.zip", "ro-crate-metadata.json"))["@graph"]
    assert next(one for one in graph if one["@id"] == "./")["license"] == "CC-BY-4.0"


def test_the_users_modules_lie_to_each_other_as_they_did(own: Sources, tmp_path: Path) -> None:
    folder = own.experiment_file.parent
    (folder / "nets").mkdir()
    (folder / "nets" / "__init__.py").write_text("")
    (folder / "nets" / "tiny.py").write_text("from parts import head\n\ndef net():\n    return head\n")
    (folder / "parts.py").write_text("head = 1\n")
    (folder / "notes.py").write_text("secret = 'not asked for'\n")
    text = yaml.safe_load((own.results / "experiment.yaml").read_text())
    text["arms"]["cnn"]["model"]["source"] = "nets.tiny:net"
    change_experiment(own, arms=text["arms"])
    archive(sources=own, output=tmp_path / "a.zip")
    inside = {name for name in names(tmp_path / "a.zip") if name.startswith("experiment/")}
    assert inside == {
        f"experiment/{name}" for name in ("digits.yaml", "nets/__init__.py", "nets/tiny.py", "parts.py")
    }


def test_no_secret_of_the_environment_gets_in(
    own: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKING_TOKEN", SECRET)
    monkeypatch.setenv("INDEX_URL", "https://me:hidden-password@example.org/simple")
    log = own.logs / "train" / "mlp" / "seed-0.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"connecting with {SECRET}\nhttps://me:hidden-password@example.org\nghp_{'a' * 36}\n")
    path = tmp_path / "a.zip"
    archive(sources=own, output=path)
    whole = b"".join(content(path, name) for name in names(path))
    for word in (SECRET, "hidden-password", "ghp_"):
        assert word.encode() not in whole
    assert content(path, "logs/digits/train/mlp/seed-0.log").decode().splitlines() == [
        "connecting with [value of TRACKING_TOKEN]",
        "https://me:[value of INDEX_URL]@example.org",
        "[secret]",
    ]


@pytest.mark.parametrize(
    "place",
    [
        "results/digits/runs/mlp/seed-0/train/log.jsonl",
        "results/digits/report/index.html",
        "digits.yaml",
        "results/digits/health/trace.json.gz",
    ],
)
def test_nothing_is_archived_with_a_secret_in_it(
    own: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import gzip

    monkeypatch.setenv("MY_API_KEY", SECRET)
    file = own.results.parents[1] / place
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(SECRET.encode()))
    else:
        file.write_text(file.read_text() + f'{{"key": "{SECRET}"}}\n')
    with pytest.raises(
        ValueError, match=r"holds the value of the environment variable MY_API_KEY"
    ) as refused:
        archive(sources=own, output=tmp_path / "a.zip")
    assert file.name in str(refused.value) and SECRET not in str(refused.value)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "text", ["-----BEGIN OPENSSH PRIVATE KEY-----", f"AKIA{'B' * 16}", f"hf_{'c' * 34}", f"glpat-{'d' * 20}"]
)
def test_tokens_are_known_by_their_form(text: str) -> None:
    with pytest.raises(ValueError, match="looks like a secret"):
        Private().check("a.yaml", f"x: {text}\n".encode())


def test_what_is_no_secret_is_let_through() -> None:
    environment = {
        "SSH_AUTH_SOCK": "/tmp/agent.1",
        "GIT_AUTHOR_NAME": "Jane Doe",
        "PWD": "/home/jane/work",
        "KEY": "short",
        "MONKEY_BUSINESS": "bananas and more",
    }
    assert private(Path("/opt/assay"), environment).secrets == {}


def test_text_logs_tell_no_paths_and_no_user() -> None:
    here = private(Path("/opt/assay"), {"HOME": "/home/jane", "USER": "jane"})
    text = (
        f"{Path.cwd()}/results/x: no such file\n/home/jane/.cache/y\n/scratch/jane/z\n/opt/assay/src/assay/cli.py\n"
        "/opt/assays is another, jane writes\n"
    )
    assert here.text_log(text.encode()).decode().splitlines() == [
        "./results/x: no such file",
        "~/.cache/y",
        "/scratch/USER/z",
        "CODE/src/assay/cli.py",
        "/opt/assays is another, jane writes",
    ]


def test_what_is_missing_is_named(own: Sources, tmp_path: Path) -> None:
    (own.results / "runs/cnn/seed-1/evaluate/record.json").unlink()
    with pytest.raises(
        ValueError, match=r"cnn/seed-1/evaluate/record\.json: is missing; run the experiment again"
    ):
        archive(sources=own, output=tmp_path / "a.zip")
    shutil.rmtree(own.results)
    with pytest.raises(ValueError, match="no resolved experiment"):
        archive(sources=own, output=tmp_path / "a.zip")


def test_the_metadata_tell_the_run(packed: Path) -> None:
    graph = {one["@id"]: one for one in json.loads(content(packed, "ro-crate-metadata.json"))["@graph"]}
    run = graph["#run"]
    assert run["@type"] == "CreateAction" and run["instrument"] == {"@id": "code/Snakefile"}
    assert (
        run["startTime"] == "2025-06-01T10:00:00.000000Z" and run["endTime"] == "2025-06-01T10:00:09.000000Z"
    )
    assert graph["./"]["datePublished"] == run["endTime"], "a time of the records, not of the packing"
    assert {one["@id"] for one in graph["./"]["conformsTo"]} >= {"https://w3id.org/ro/wfrun/workflow/0.5"}
    files = {name for name, one in graph.items() if "File" in one["@type"]}
    assert files == names(packed) - {"ro-crate-metadata.json", "SHA256SUMS"}
