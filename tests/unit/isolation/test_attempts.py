"""The evidence of how a job's attempts ended."""

import json
from pathlib import Path

import pytest

from assay.isolation.attempts import FILE, Evidence, last_attempt


def test_attempts_count_until_one_completes(tmp_path: Path) -> None:
    assert last_attempt(tmp_path) is None
    for number in (1, 2):
        evidence = Evidence(tmp_path, 100)
        found = last_attempt(tmp_path)
        assert found is not None and (found.attempt, found.ended, found.peak_memory_mb) == (
            number,
            None,
            None,
        )
        evidence.end("out_of_memory", 9)
    with Evidence(tmp_path, 200) as evidence:
        evidence.peak(150.04)
        evidence.peak(20)
    found = last_attempt(tmp_path)
    assert found is not None and (found.attempt, found.ended, found.share_of_bound) == (3, "completed", 0.75)
    assert Evidence(tmp_path, None).attempt.attempt == 1
    assert Evidence(tmp_path, None).attempt.share_of_bound is None, "what was not measured is not 0"


def test_a_job_that_raises_says_how_it_ended(tmp_path: Path) -> None:
    for error, ended in (
        (ValueError(), "error"),
        (SystemExit(1), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ):
        with pytest.raises(type(error)), Evidence(tmp_path, None):
            raise error
        found = last_attempt(tmp_path)
        assert found is not None and found.ended == ended


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"attempt": 1})])
def test_a_damaged_file_is_no_attempt(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert last_attempt(tmp_path) is None
    assert Evidence(tmp_path, None).attempt.attempt == 1
