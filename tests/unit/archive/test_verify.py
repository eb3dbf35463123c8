"""Every way in which an archive may be wrong is found, and told with the file that it is about."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_archive import Whole, sources_of

from assay.archive import recompute
from assay.archive.run import archive
from assay.archive.verify import Verified, verify
from assay.cli import main
from assay.reporting.run import report

RUNS = "results/digits/runs"
RECORD = f"{RUNS}/cnn/seed-1/evaluate/record.json"
Forge = Callable[..., Verified]


def told(found: Verified) -> str:
    return "\n".join(map(str, found.problems))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1) + "\n")


def test_what_was_archived_agrees(packed: Path, unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(packed)
    assert told(found) == ""
    assert found.files and found.files > 100 and found.records == 16 and found.recomputed > 20
    assert main(["verify", str(packed)]) == 0
    assert "everything agrees" in capsys.readouterr().out
    assert verify(unpacked).holds, "taken out it agrees too"


def test_results_that_are_no_archive_are_checked_as_far_as_can_be(unpacked: Path, tmp_path: Path) -> None:
    results = tmp_path / "digits"
    shutil.copytree(unpacked / "results/digits", results)
    found = verify(results)
    assert found.holds and found.files is None and "no checksums" in found.notes[0]
    edit(
        results / "comparison/comparison.json",
        lambda content: content.update(headline="cnn is better: trust me."),
    )
    assert "digits/comparison/comparison.json: is not what comes out of the records" in told(verify(results))


def test_a_flipped_bit_is_found(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(packed.read_bytes())
    place = content.index(b"predictions.parquet") + 100
    content[place] ^= 4
    bad = tmp_path / "bad.crate.zip"
    bad.write_bytes(content)
    assert main(["verify", str(bad)]) == 1
    told = capsys.readouterr()
    assert "evaluate/predictions.parquet: is damaged" in told.out
    assert "not agree" in told.err


def test_an_edited_file_is_found_by_its_checksum(forge: Forge) -> None:
    def change(root: Path) -> None:
        (root / "logs/digits/compare.log").write_text("all is well\n")

    assert told(forge(change, sums=False)) == (
        "logs/digits/compare.log: is not the file that was archived: its checksum differs"
    )


def test_an_added_and_a_removed_file_are_found(forge: Forge) -> None:
    def change(root: Path) -> None:
        (root / "results/digits/runs/more.txt").write_text("more")
        (root / "logs/digits/compare.log").unlink()

    found = told(forge(change, sums=False))
    assert "results/digits/runs/more.txt: has no checksum: it was added" in found
    assert "logs/digits/compare.log: is missing: it has a checksum" in found


def test_an_edited_record_is_found_though_its_checksum_is_right(forge: Forge) -> None:
    def change(root: Path) -> None:
        record = root / "results/digits/profile/block-1/cnn/record.json"
        edit(record, lambda record: record["metrics"]["latency_ms"].update(value=0.0123))

    found = told(forge(change))
    for file in (
        "comparison/comparison.json",
        "comparison/metrics.csv",
        "report/tables/blocks.csv",
        "report/tables/contrasts.tex",
        "report/index.html",
    ):
        assert f"results/digits/{file}: is not what comes out of the records" in found
    assert "computed '" in found and "0.0123" in found, "the number that comes out is told"


def test_an_edited_accuracy_is_found_by_its_predictions(forge: Forge) -> None:
    def change(root: Path) -> None:
        edit(root / RECORD, lambda record: record["metrics"]["accuracy"].update(value=0.999))

    found = told(forge(change))
    assert "cannot be computed again: runs/cnn/seed-1/evaluate/" in found and "0.999" in found


def test_an_edited_number_is_found_wherever_it_stands(forge: Forge) -> None:
    def change(root: Path) -> None:
        table = root / "results/digits/report/tables/metrics.tex"
        table.write_text(table.read_text().replace("9", "8", 1))
        figure = root / "results/digits/report/figures/training-loss.svg"
        figure.write_text(figure.read_text().replace("\nL 1", "\nL 2", 1))
        picture = root / "results/digits/report/figures/training-loss.png"
        picture.write_bytes(picture.read_bytes()[:-1])

    found = forge(change)
    assert [problem.file.rpartition("/")[2] for problem in found.problems] == [
        "training-loss.png",
        "training-loss.svg",
        "metrics.tex",
    ]


def test_records_that_contradict_their_surroundings_are_found(forge: Forge) -> None:
    changes: dict[str, tuple[str, Any, str]] = {
        "cnn/seed-0": ("seed", 2, "seed: is 2, and 0 belongs here"),
        "cnn/seed-1": ("spec", {}, "spec_sha256: is not the checksum of its spec"),
        "cnn/seed-2": ("data_sha256", "00" * 32, "data_sha256: is not the checksum of data/manifest.json"),
        "mlp/seed-0": (
            "weights_sha256",
            "00" * 32,
            "weights_sha256: evaluated other weights than the training beside",
        ),
        "mlp/seed-1": (
            "code",
            {"version": "0.1.0", "sources_sha256": "00" * 32},
            "was made by other code of stage evaluate",
        ),
        "mlp/seed-2": ("outcome", "splendid", "outcome: Input should be 'completed'"),
    }

    def change(root: Path) -> None:
        for run, (key, value, _) in changes.items():
            edit(root / RUNS / run / "evaluate/record.json", lambda record: record.update({key: value}))  # noqa: B023

    found = told(forge(change))
    for run, (_, _, what) in changes.items():
        assert f"{RUNS}/{run}/evaluate/record.json: {what}" in found


def test_swapped_logs_are_found(forge: Forge) -> None:
    def change(root: Path) -> None:
        one, other = (root / RUNS / f"mlp/seed-{seed}/train/log.jsonl" for seed in (0, 1))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)

    found = told(forge(change))
    for seed, stray in ((0, 1), (1, 0)):
        assert (
            f"{RUNS}/mlp/seed-{seed}/train/log.jsonl: line 1: seed is {stray}, and {seed} belongs here"
            in found
        )


def test_logs_that_contradict_their_records_are_found(forge: Forge) -> None:
    changes = {
        "mlp/seed-0": ('"event": "finished"', '"event": "ended"', "does not say that the training finished"),
        "mlp/seed-1": (
            '"outcome": "completed"',
            '"outcome": "diverged"',
            "ended 'diverged', and the record says 'completed'",
        ),
        "mlp/seed-2": ('"event": "started"', '"event": ', "line 1 is no line of a log"),
        "cnn/seed-0": ('"epoch": 14', '"epoch": 3', "has 14 epochs, and the record beside it 15"),
    }

    def change(root: Path) -> None:
        for run, (before, after, _) in changes.items():
            path = root / RUNS / run / "train/log.jsonl"
            assert before in path.read_text()
            path.write_text(path.read_text().replace(before, after))
        path, other = (root / RUNS / f"cnn/seed-{seed}/train/log.jsonl" for seed in (1, 2))
        path.write_text(other.read_text().replace('"seed": 2,', '"seed": 1,'))

    found = told(forge(change))
    for run, (_, _, what) in changes.items():
        assert f"{RUNS}/{run}/train/log.jsonl: {what}" in found
    assert f"{RUNS}/cnn/seed-1/train/log.jsonl: epoch 0: train_accuracy is " in found, (
        "another run's, under this one's name"
    )
    assert "and in the record beside it" in found


def test_a_missing_run_is_found(forge: Forge) -> None:
    found = told(forge(lambda root: shutil.rmtree(root / RUNS / "cnn/seed-2")))
    assert f"{RUNS}/cnn/seed-2/train/record.json: is missing, and the experiment calls for it" in found
    assert "comparison.json: is not what comes out of the records" in found


def test_a_run_too_many_is_found(forge: Forge) -> None:
    """Of whoever ran ten seeds and chose among them."""

    def change(root: Path) -> None:
        shutil.copytree(root / RUNS / "cnn/seed-2", root / RUNS / "cnn/seed-7")

    assert f"{RUNS}/cnn/seed-7/train/record.json: is of no arm, seed or block of the experiment" in told(
        forge(change)
    )


def test_an_experiment_that_was_edited_afterwards_is_found(forge: Forge) -> None:
    def change(root: Path) -> None:
        file = root / "results/digits/experiment.yaml"
        file.write_text(file.read_text().replace("epochs: ", "epochs: 1", 1))

    found = told(forge(change))
    assert "results/digits/comparison/contract.json: is not what comes out of the records" in found


def test_an_experiment_that_is_none_is_told(forge: Forge) -> None:
    found = told(forge(lambda root: (root / "results/digits/experiment.yaml").write_text("name: [")))
    assert "results/digits/experiment.yaml: is not a resolved experiment" in found


def test_changed_code_is_found(forge: Forge) -> None:
    """With a checksum that is right, by what the records say ran."""

    def change(root: Path) -> None:
        path = root / "code/src/assay/evaluation/metrics.py"
        path.write_text(path.read_text() + "# generous\n")

    found = told(forge(change))
    assert f"{RECORD}: was made by other code of stage evaluate than lies in code/" in found


def test_without_its_lists_it_is_no_archive(forge: Forge) -> None:
    def change(root: Path) -> None:
        (root / "ro-crate-metadata.json").unlink()
        (root / "archive.json").unlink()

    found = told(forge(change))
    assert "ro-crate-metadata.json: is missing" in found and "archive.json: is missing" in found


def test_a_link_in_a_folder_is_found(unpacked: Path, tmp_path: Path) -> None:
    root = tmp_path / "crate"
    shutil.copytree(unpacked, root)
    record = root / RECORD
    shutil.move(record, tmp_path / "elsewhere.json")
    record.symlink_to(tmp_path / "elsewhere.json")
    assert f"{RECORD}: is a link" in told(verify(root))


def test_numbers_that_differ_by_rounding_are_the_same(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another processor gives them: which bits come out is told, and is no lie."""
    compare = recompute.compare

    def elsewhere(*, output: Path, **arguments: Any) -> Any:
        found = compare(output=output, **arguments)
        for metric in found.metrics:
            for line in metric.contrasts:
                line.estimate = None if line.estimate is None else line.estimate * (1 + 1e-13)
        found.write(output / "comparison.json")
        return found

    monkeypatch.setattr(recompute, "compare", elsewhere)
    found = verify(packed)
    assert found.holds and "by rounding alone" in "".join(found.notes)


def test_figures_of_another_matplotlib_are_compared_by_what_they_show(forge: Forge) -> None:
    def drawn_before(root: Path) -> None:
        """As an older version wrote it: with another name in it."""
        edit(root / "archive.json", lambda about: about.update(drawn_with="matplotlib 1.0"))
        for figure in (root / "results/digits/report/figures").glob("*.svg"):
            figure.write_text(figure.read_text().replace("Matplotlib v", "Matplotlib w"))

    found = forge(drawn_before)
    assert told(found) == ""
    assert "2 figures were compared by what is drawn where: they were drawn with matplotlib 1.0" in "".join(
        found.notes
    )


def test_a_point_moved_in_a_figure_of_another_matplotlib_is_found(forge: Forge) -> None:
    def change(root: Path) -> None:
        edit(root / "archive.json", lambda about: about.update(drawn_with="matplotlib 1.0"))
        figure = root / "results/digits/report/figures/paired-slopes.svg"
        text = figure.read_text()
        start = text.index('<use xlink:href="#m', text.index('id="line2d_'))
        place = text.index(' y="', start) + 4
        figure.write_text(f"{text[:place]}9{text[place + 1 :]}")

    assert "figures/paired-slopes.svg: shows other data than the records" in told(forge(change))


def test_nothing_to_check_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "none.crate.zip")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 2
    assert "no folder of results" in capsys.readouterr().err


def test_a_file_that_would_do_harm_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    bad = tmp_path / "bad.crate.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("../evil", "evil")
    assert main(["verify", str(bad)]) == 1
    assert "has '..' in its path" in capsys.readouterr().out


def test_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    assert "exit codes:\n  0  everything agrees" in capsys.readouterr().out


def test_whatever_lies_in_a_file_is_told_and_breaks_nothing(forge: Forge) -> None:
    def change(root: Path) -> None:
        (root / RUNS / "mlp/seed-0/train/log.jsonl").write_text("[" * 100_000 + "\n")
        (root / RUNS / "mlp/seed-1/train/log.jsonl").write_bytes(b"\xff\xfe\0\n[]\n")
        (root / RUNS / "mlp/seed-2/train/log.jsonl").write_text("")
        (root / RUNS / "cnn/seed-0/evaluate/predictions.parquet").write_bytes(b"PAR1 and no more")
        (root / RUNS / "cnn/seed-1/train/record.json").write_text("[" * 100_000)
        (root / "results/digits/data/manifest.json").write_text('{"schema_version": 1}')

    found = told(forge(change))
    for file in ("mlp/seed-0/train/log.jsonl", "mlp/seed-1/train/log.jsonl", "mlp/seed-2/train/log.jsonl"):
        assert f"{RUNS}/{file}: " in found
    assert f"{RUNS}/cnn/seed-1/train/record.json: " in found
    assert "results/digits/comparison: cannot be computed again" in found


def test_failed_runs_and_a_noise_floor_agree_too(tmp_path: Path, few_figures: None) -> None:
    made = Whole(tmp_path, seeds=3, blocks=3, batch_sizes=(1,), outcomes={("cnn", 1): "diverged"}, noise=True)
    results = made.make()
    for path in sorted((results / "runs/mlp").rglob("*.*")):
        if path.name in ("log.jsonl", "predictions.parquet"):
            copy = results / "noise/runs/mlp-again" / path.relative_to(results / "runs/mlp")
            copy.write_bytes(path.read_bytes().replace(b'"arm": "mlp"', b'"arm": "mlp-again"'))
    report(results=results, output=results / "report")
    archive(sources=sources_of(tmp_path), output=tmp_path / "a.crate.zip")
    found = verify(tmp_path / "a.crate.zip")
    assert told(found) == ""
    edit(results / "noise/floor.json", lambda floor: floor.update(arm="cnn"))
    assert "digits/noise/floor.json: is not what comes out of the records" in told(verify(results))
