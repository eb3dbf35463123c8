"""What the terminal shows."""

from collections.abc import Callable
from typing import Any

import pytest

from assay.comparison.terminal import show, text
from assay.records import RecordError

Make = Callable[..., Any]
VALUES = {
    "accuracy": {
        "mlp": [0.968, 0.967, 0.970, 0.966, 0.969, 0.968],
        "cnn": [0.987, 0.985, 0.989, 0.986, 0.984, 0.990],
    },
    "latency_ms": {"mlp": [1.0] * 6, "cnn": [2.5, 2.6, 2.4, 2.5, 2.55, 2.4]},
    "parameters": {"mlp": [1000.0] * 6, "cnn": [95_146.0] * 6},
}


def test_verdict_first(make: Make) -> None:
    made = make(VALUES)
    comparison = made.compare()
    lines = text(made.folder, width=400).splitlines()
    assert lines[1].strip() == comparison.headline
    row = next(line for line in lines if line.strip().startswith("accuracy"))
    assert " ".join(row.split()) == "accuracy 96.8% 98.7% +1.9 pp +1.7 to +2.0 0.031 better"
    assert "\x1b" not in text(made.folder)


def test_piped_output_is_plain(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(VALUES)
    made.compare()
    (made.folder / "report").mkdir()
    (made.folder / "report" / "index.html").touch()
    show(made.folder, width=60)
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert f"Report: {made.folder / 'report' / 'index.html'}" in output


def test_failures_and_violations_are_shown(make: Make) -> None:
    made = make(VALUES)
    made.edit("cnn", 2, "train", lambda record: record.update(outcome="out_of_memory"))
    made.edit_all("cnn", lambda record: record["environment"].update(python="3.13"))
    made.compare()
    output = text(made.folder, width=200)
    assert "cnn: out of memory at 1 of 6 seeds" in output
    assert "Python differs between arms" in output
    assert "better" not in output


def test_many_arms_fit(make: Make) -> None:
    arms = {f"arm{i}": [0.9, 0.91, 0.92] for i in range(40)}
    made = make({"accuracy": arms})
    made.compare()
    output = text(made.folder)
    assert "27 more rows are in the report" in output
    assert len(output.splitlines()) < 40


def test_no_comparison_yet(tmp_path: Any) -> None:
    with pytest.raises(RecordError, match="no such comparison"):
        show(tmp_path)
