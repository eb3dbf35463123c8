"""Kernel traces in the report: the longest kernels, the differences between arms, and arms without a trace."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from made_results import Made

from assay.comparison.run import compare
from assay.records import Record, RecordError
from assay.reporting import html, kernels
from assay.reporting.html import unfinished
from assay.reporting.read import Results, load
from assay.reporting.tables import tables
from assay.tracing.model import Kernel, Kernels, Traced

NASTY = "void <script>alert(1)</script> | _%$#^~\\ " + "long" * 40


def traced(step: float, images: int, times: dict[str, float], kind: str = "operators") -> dict[str, Any]:
    made = [
        Kernel(
            name=name,
            calls=2,
            self_us=time,
            share=time / step,
            flops=None,
            shapes=["4×8, 8×2"],
            operator=None,
        )
        for name, time in times.items()
    ]
    rest = step - sum(times.values())
    found = Kernels(kind=kind, steps=5, step_us=step, rest_us=rest, kernels=made)  # type: ignore[arg-type]
    return Traced(file="x.json.gz", sha256="0", bytes=1, images=images, kernels=found).model_dump()


def with_traces(folder: Path, details: dict[str, dict[str, Any]], **outcome: Any) -> Results:
    made = Made(folder, seeds=2, blocks=2, logs=False)
    results = made.make()
    for arm, told in details.items():
        record = Record.read(results / "profile" / "block-0" / arm / "record.json")
        changes = {"stage": "trace", "block": None, "metrics": {}, "details": told}
        failed = outcome if arm == "cnn" else {}
        record.model_copy(update=changes | failed).write(results / "trace" / arm / "record.json")
    return load(results)


def rows(results: Results, name: str) -> list[dict[str, str]]:
    (table,) = [table for table in tables(results) if table.name == name]
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_differences_are_told_by_image_and_the_largest_comes_first(tmp_path: Path) -> None:
    mlp = {"inference": traced(100, 10, {"aten::addmm": 50, "aten::t": 30}), "training": None}
    cnn = {"inference": traced(400, 20, {"aten::conv": 300, "aten::addmm": 40}), "training": None}
    results = with_traces(tmp_path, {"mlp": mlp, "cnn": cnn})
    found = {line["kernel"]: line for line in rows(results, "kernel-differences")}
    assert list(found) == ["(whole step)", "aten::conv", "aten::addmm", "aten::t", "(outside operators)"]
    assert float(found["(whole step)"]["difference_us"]) == 20 - 10
    assert found["aten::conv"]["baseline_us"] == "" and float(found["aten::conv"]["arm_us"]) == 15
    assert float(found["aten::addmm"]["difference_us"]) == 2 - 5
    parts = sum(float(line["difference_us"]) for name, line in found.items() if name != "(whole step)")
    assert parts == pytest.approx(float(found["(whole step)"]["difference_us"]))
    (table,) = [table for table in tables(results) if table.name == "kernel-differences"]
    assert table.rows[1] == ["inference", "cnn", "aten::conv", "–", "15.0 µs", "+15.0 µs"]
    assert table.rows[2][-1] == "−3.00 µs"


def test_the_longest_kernels_are_shown_and_all_are_in_the_file(tmp_path: Path) -> None:
    times = {f"op{number}": 100.0 - number for number in range(30)}
    results = with_traces(tmp_path, {"mlp": {"inference": traced(4000, 1, times), "training": None}})
    (table,) = [table for table in tables(results) if table.name == "kernels"]
    assert len(table.rows) == kernels.SHOWN
    assert [row[2] for row in table.rows[:3]] == ["(outside operators)", "op0", "op1"]
    assert len(rows(results, "kernels")) == 31
    assert table.rows[1][3:6] == ["100 µs", "2.5%", "2"]
    assert not [table for table in tables(results) if table.name == "kernel-differences"], "there is no other"


def test_kernels_of_a_gpu_are_not_compared_with_operators_of_a_cpu(tmp_path: Path) -> None:
    mlp = {"inference": traced(100, 10, {"gemm": 50}, kind="kernels"), "training": None}
    cnn = {"inference": traced(100, 10, {"aten::addmm": 50}), "training": None}
    results = with_traces(tmp_path, {"mlp": mlp, "cnn": cnn})
    assert {line["kernel"] for line in rows(results, "kernels")} >= {"(GPU idle)", "(outside operators)"}
    assert not [table for table in tables(results) if table.name == "kernel-differences"]


def test_an_arm_that_failed_is_told_with_what_was_traced_of_it(tmp_path: Path) -> None:
    good = traced(100, 10, {NASTY: 50})
    results = with_traces(
        tmp_path,
        {"mlp": {"inference": good, "training": good}, "cnn": {"inference": good, "training": None}},
        outcome="failed",
        message="training: RuntimeError: no",
    )
    assert {(line["trace"], line["arm"]) for line in rows(results, "kernel-differences")} == {
        ("inference", "cnn")
    }
    told = {"what": "cnn, kernel traces", "outcome": "failed", "why": "training: RuntimeError: no"}
    assert told in unfinished(results)
    page = html.page(results, tables(results), [])
    assert "Where the time goes" in page and "<script>alert" not in page
    assert (
        max(len(row[2]) for table in tables(results) if table.name == "kernels" for row in table.rows) <= 72
    )


def test_without_traces_there_is_nothing_of_them(made: Path) -> None:
    results = load(made)
    assert {one.outcome for one in results.traces} == {"missing"}
    page = html.page(results, tables(results), [])
    assert "Where the time goes" not in page and "kernel traces" not in page


def test_the_comparison_looks_at_no_trace(tmp_path: Path) -> None:
    results = with_traces(tmp_path, {})
    before = {path.name: path.read_bytes() for path in (results.folder / "comparison").iterdir()}
    (results.folder / "trace" / "mlp").mkdir(parents=True)
    (results.folder / "trace" / "mlp" / "record.json").write_text("nonsense")
    compare(
        experiment_file=results.folder / "experiment.yaml", results=results.folder, output=tmp_path / "again"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"trace/mlp/record\.json: details.*: .*remove it"):
        with_traces(tmp_path, {"mlp": {"inference": {"file": 1}, "training": None}})
