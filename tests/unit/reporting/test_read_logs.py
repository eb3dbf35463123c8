import math
from pathlib import Path

import pytest

from assay.records import Log
from assay.reporting.logs import LogError, read_logs

COLUMNS = ("arm", "seed", "event", "step", "loss")


def write(path: Path, losses: dict[int, float], *, arm: str = "a", seed: int = 0, attempt: int = 1) -> Path:
    with Log(
        path, identity={"experiment": "e", "arm": arm, "seed": seed, "stage": "train"}, attempt=attempt
    ) as log:
        for step, loss in losses.items():
            log.write("step", step=step, epoch=0, loss=loss, accuracy=0.5, history={"nested": [1, 2]})
    return path


def losses(paths: list[Path]) -> dict[tuple[str, int, int], float]:
    rows = read_logs(paths, COLUMNS).rows(named=True)
    found = {(row["arm"], row["seed"], row["step"]): row["loss"] for row in rows}
    assert len(found) == len(rows), "a line came twice"
    return found


def test_all_lines_of_all_logs(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{arm}{seed}.jsonl", {1: 0.5, 2: 0.25}, arm=arm, seed=seed)
        for arm in "ab"
        for seed in (0, 1)
    ]
    found = losses(paths)
    assert len(found) == 8
    assert found["b", 1, 2] == 0.25


def test_no_logs_and_empty_logs_give_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for paths in ([], [tmp_path / "empty.jsonl"]):
        table = read_logs(paths, COLUMNS)
        assert table.columns == list(COLUMNS)
        assert table.is_empty()


def test_the_later_attempt_counts_and_lines_it_did_not_repeat_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {1: 0.9, 2: 0.8, 3: 0.7})
    write(path, {2: 0.2, 3: 0.1, 4: 0.05}, attempt=2)
    other = write(tmp_path / "other.jsonl", {1: 7.0}, arm="b")
    assert losses([path, other]) == {
        ("a", 0, 1): 0.9,
        ("a", 0, 2): 0.2,
        ("a", 0, 3): 0.1,
        ("a", 0, 4): 0.05,
        ("b", 0, 1): 7.0,
    }


@pytest.mark.parametrize(
    "torn", ['{"arm": "a", "seed"', "{", '{"arm": "a", "seed": 0, "step": 9, "loss": 0.1}']
)
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: str) -> None:
    path = write(tmp_path / "log.jsonl", {1: 0.9, 2: 0.8})
    with path.open("a") as file:
        file.write(torn)
    whole = write(tmp_path / "whole.jsonl", {1: 0.5}, arm="b")
    assert set(losses([path, whole])) == {("a", 0, 1), ("a", 0, 2), ("b", 0, 1)}


def test_a_log_of_one_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"arm": ')
    assert read_logs([path], COLUMNS).is_empty()


def test_nan_and_infinity_come_back(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {1: 0.5, 2: math.nan, 3: math.inf, 4: -math.inf})
    found = losses([path])
    assert found["a", 0, 1] == 0.5
    assert math.isnan(found["a", 0, 2])
    assert (found["a", 0, 3], found["a", 0, 4]) == (math.inf, -math.inf)


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {1: 0.5})
    assert read_logs([path], ["gpu_memory_mb"])["gpu_memory_mb"].to_list() == [None]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {1: 0.5})
    with path.open("a") as file:
        file.write('{"arm": nonsense}\n')
    write(path, {2: 0.4})
    with pytest.raises(LogError, match=r"log\.jsonl, line 2"):
        read_logs([path], COLUMNS)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        read_logs([tmp_path / "gone.jsonl"], COLUMNS)
