"""What came out when an archive was run again: the same bits, the same within chance, or something else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.archive.reproduce import Again, NotReproduced, _refuse_other_data, reproduce, unlike_lock
from assay.archive.reproduction import Circumstance, Reproduction, changed_p, reproduction
from assay.cli import main
from assay.comparison import statistics
from assay.comparison.model import Comparison
from assay.comparison.run import read_experiment
from assay.records import Record, sha256_bytes


@pytest.fixture
def archived(unpacked: Path) -> Path:
    return unpacked / "results/digits"


@pytest.fixture
def anew(archived: Path, tmp_path: Path) -> Path:
    """What a run left that came out the same; a test changes it."""
    return Path(shutil.copytree(archived, tmp_path / "anew"))


def outcome(archived: Path, anew: Path, packages: tuple[Circumstance, ...] = ()) -> Reproduction:
    experiment = read_experiment(archived / "experiment.yaml")
    return reproduction(experiment, archived, anew, sums="ab" * 32, packages=list(packages))


def change_records(results: Path, pattern: str, change: Callable[[Record], None]) -> None:
    for path in results.glob(pattern):
        record = Record.read(path)
        change(record)
        record.write(path)


def change_comparison(results: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = results / "comparison/comparison.json"
    content = json.loads(path.read_text())
    for metric in content["metrics"]:
        for line in metric["contrasts"]:
            change({"metric": metric["name"], "line": line})
    path.write_text(json.dumps(content))


def test_the_same_bits_are_the_same(archived: Path, anew: Path) -> None:
    found = outcome(archived, anew)
    assert found.word == "identical" and found.same_bits_expected
    assert found.sentence.startswith("Reproduced: 6 of 6 runs came out to the bit")
    assert all(run.identical for run in found.runs) and found.circumstances == []
    found.write(anew / "reproduction.json")
    assert Reproduction.read(anew / "reproduction.json") == found


@pytest.mark.parametrize("field", ["weights_sha256", "batches_sha256"])
def test_one_other_run_is_another_outcome_where_bits_have_to_be_the_same(
    archived: Path, anew: Path, field: str
) -> None:
    change_records(
        anew, "runs/cnn/seed-1/train/record.json", lambda record: setattr(record, field, "00" * 32)
    )
    found = outcome(archived, anew)
    assert found.word == "different"
    assert "5 of 6 runs came out to the bit, where all had to" in found.sentence
    assert [(run.arm, run.seed) for run in found.runs if not run.identical] == [("cnn", 1)]


def test_elsewhere_numbers_may_differ_within_their_intervals(archived: Path, anew: Path) -> None:
    def elsewhere(record: Record) -> None:
        record.environment.cpu = "another processor"
        record.weights_sha256 = "00" * 32

    change_records(anew, "runs/*/*/train/record.json", elsewhere)
    change_records(
        anew,
        "runs/*/*/evaluate/record.json",
        lambda record: record.metrics["accuracy"].__setattr__("value", 0.5),
    )
    half = Comparison.read(archived / "comparison/comparison.json").metrics[0].contrasts[0]
    assert half.interval is not None and half.interval.high is not None and half.estimate is not None
    high, estimate = half.interval.high, half.estimate

    def nudge(one: dict[str, Any]) -> None:
        if one["metric"] == "accuracy":
            one["line"]["estimate"] = estimate + 0.1 * (high - estimate)

    change_comparison(anew, nudge)
    found = outcome(archived, anew)
    assert found.word == "consistent" and not found.same_bits_expected
    assert [one.what for one in found.circumstances] == ["processor"]
    assert found.sentence.startswith("Reproduced within chance: 0 of 6 runs came out to the bit")

    def far(one: dict[str, Any]) -> None:
        if one["metric"] == "accuracy":
            one["line"]["estimate"] = high + 0.01

    change_comparison(anew, far)
    found = outcome(archived, anew)
    assert found.word == "consistent" and {one.p for one in found.estimates if one.learnt} <= {1.0, None}

    def shifted(one: dict[str, Any]) -> None:
        if one["metric"] == "accuracy":
            for seed, value in one["line"]["differences"].items():
                one["line"]["differences"][seed] = value + 0.1 + 1e-4 * int(seed)

    change_comparison(anew, shifted)
    found = outcome(archived, anew)
    (told,) = [one for one in found.estimates if one.metric == "accuracy"]
    assert found.word == "different" and told.agrees is False and told.p is not None and told.p < 0.001


def test_the_test_of_what_changed_is_scipys() -> None:
    from scipy.stats import ttest_rel

    before = {"0": 0.01, "1": 0.03, "2": -0.01, "3": 0.02}
    after = {"0": 0.02, "1": 0.02, "2": 0.01, "3": 0.05}
    expected = ttest_rel(list(after.values()), list(before.values())).pvalue
    assert changed_p(before, after) == pytest.approx(expected)
    assert changed_p(before, before) == 1.0
    assert changed_p(before, {seed: value + 0.25 for seed, value in before.items()}) == pytest.approx(
        0, abs=1e-9
    )
    assert changed_p(before, {"0": 0.1}) is None and changed_p({"0": 0.1}, {"0": 0.1}) is None


@pytest.mark.parametrize(("n", "outside"), [(30, 0.15)])
def test_honest_runs_are_rarely_told_apart(n: int, outside: float) -> None:
    """Independent luck at the same seeds: a twentieth at most, where intervals alone would miss far more often."""
    draws = np.random.default_rng(n).normal(size=(2, 600, n))
    one, other = draws.mean(axis=-1)
    (low, high), (least, most) = (
        statistics.bca_interval(part, confidence=0.95, resamples=1000) for part in draws
    )
    missed = (one < least) | (one > most) | (other < low) | (other > high)
    p = [
        changed_p(*({str(seed): float(value) for seed, value in enumerate(row)} for row in pair))
        for pair in zip(*draws, strict=True)
    ]
    told = missed & np.array([value is not None and value <= 0.05 for value in p])
    assert missed.mean() > outside
    assert told.mean() < 0.05 + 4 * 0.009, "four standard errors"


def test_an_opposite_verdict_is_never_a_reproduction(archived: Path, anew: Path, tmp_path: Path) -> None:
    before = Path(shutil.copytree(archived, tmp_path / "before"))
    for results, verdict in ((before, "better"), (anew, "worse")):
        change_comparison(
            results,
            lambda one: one["line"].update(verdict=verdict) if one["metric"] == "latency_ms" else None,  # noqa: B023
        )
    found = outcome(before, anew)
    assert found.word == "different" and "the verdict on cnn in latency_ms is the opposite" in found.sentence


def test_other_packages_than_the_locks_are_told(tmp_path: Path) -> None:
    lock = tmp_path / "run.txt"
    lock.write_text("numpy==0.0.1 \\\n    --hash=sha256:00\nno-such-package==1.0\n# numpy==9\n")
    found = list(unlike_lock(lock))
    assert [(one.what, one.archived) for one in found] == [("lock numpy", "0.0.1")]
    assert found[0].here != "0.0.1"
    assert list(unlike_lock(tmp_path / "none.txt")) == []


def test_a_damaged_archive_is_not_run(unpacked: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(unpacked, tmp_path / "crate"))
    (root / "code/Snakefile").write_text("import os\n")
    with pytest.raises(
        ValueError, match=r"code/Snakefile: is not the file that was archived.*nothing of it is run"
    ):
        reproduce(Again(root, tmp_path / "again"), print)
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match="is no archive"):
        reproduce(Again(unpacked / "results/digits", tmp_path / "again"), print)


def test_a_folder_that_is_there_is_left_alone(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine.txt").write_text("mine")
    assert main(["reproduce", str(packed), "--into", str(tmp_path / "again")]) == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["mine.txt"]


def test_data_that_are_not_in_the_archive_are_asked_for(unpacked: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(unpacked, tmp_path / "crate"))
    file = root / "results/digits/experiment.yaml"
    file.write_text(file.read_text().replace("  path: null", "  path: my/images"))
    _new_sums(root)
    with pytest.raises(ValueError, match=r"its data lay in 'my/images'.*--data FOLDER"):
        reproduce(Again(root, tmp_path / "again"), print)
    with pytest.raises(ValueError, match="is no folder; write --data FOLDER"):
        reproduce(Again(root, tmp_path / "again", data=tmp_path / "none"), print)


def _new_sums(root: Path) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{sha256_bytes(path.read_bytes())}  {path.relative_to(root).as_posix()}\n" for path in files]
    (root / "SHA256SUMS").write_text("".join(lines))


def test_other_data_are_refused_and_told(archived: Path, anew: Path, tmp_path: Path) -> None:
    one, other = (results / "data/manifest.json" for results in (archived, anew))
    again = Again(tmp_path / "a.zip", tmp_path / "again", data=tmp_path)
    _refuse_other_data(one, other, again)
    content = json.loads(other.read_text())
    content["splits"]["test"]["sha256"] = "cd" * 32
    other.write_text(json.dumps(content))
    with pytest.raises(NotReproduced, match=r"are not those of the archive: splits\.test\.sha256 differ"):
        _refuse_other_data(one, other, again)


def test_snakemakes_arguments_stand_after_the_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind options of the command's own, where argparse takes no more words."""
    asked: list[Again] = []

    def ask(again: Again, _: object) -> None:
        asked.append(again)
        raise NotReproduced("asked")

    monkeypatch.setattr("assay.archive.reproduce.reproduce", ask)
    assert (
        main(["reproduce", "a.crate.zip", "--into", "here", "--cores", "2", "--", "--sdm", "apptainer"]) == 1
    )
    assert main(["reproduce", "a.crate.zip", "--", "--quiet"]) == 1
    assert main(["reproduce", "a.crate.zip"]) == 1
    assert [(one.cores, list(one.options)) for one in asked] == [
        ("2", ["--sdm", "apptainer"]),
        ("all", ["--quiet"]),
        ("all", []),
    ]
