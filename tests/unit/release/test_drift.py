"""Drift is seen where it was put in, and nowhere else."""

import json
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from drift_simulation import Effect, lines, made_reference, side_by_side
from drift_simulation import watched as simulated

from assay.release.drift import measures, monitor
from assay.release.drift.changes import Stream
from assay.release.drift.monitor import Drift, Finding
from assay.release.drift.reader import PredictionReader
from assay.release.drift.sample import Lowest, Sample, Window
from assay.release.observations import Prediction
from assay.release.schema import Drift as Settings

SETTINGS = Settings(window=200)
BRIGHT = Effect(brighter=40)
UNSURE = Effect(confidence=-0.3)


def watched(
    candidate: Effect, stable: Effect | None = None, settings: Settings = SETTINGS, users: int = 700
) -> Drift:
    return simulated(users, np.random.default_rng(0), settings, candidate, stable or Effect())


def found(drift: Drift) -> set[str]:
    return {f"{one.kind}.{one.feature}" for one in drift.findings}


def test_no_drift_is_silent() -> None:
    """Level 5% for all that is looked at in a release: few of 24 releases may say something."""
    settings = Settings(window=100, level=0.05, psi=1e-9)
    noisy = sum(bool(simulated(300, np.random.default_rng(seed), settings).findings) for seed in range(24))
    assert noisy <= 1.2 + 3 * (24 * 0.05 * 0.95) ** 0.5


def test_requests_counted_for_users_would_not_be_silent() -> None:
    """The same with every line a user of its own: what the sampling is for."""
    noisy = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        drift = Drift(Settings(window=500, level=0.05, psi=1e-9), made_reference(rng))
        made = [
            [{**line, "user": f"{role}{n}"} for n, line in enumerate(lines(200, rng, role=role, most=200))]
            for role in ("stable", "candidate")
        ]
        side_by_side(drift, *made)  # type: ignore[arg-type]
        noisy += bool(drift.findings)
    assert noisy > 0.5 + 3 * (10 * 0.05 * 0.95) ** 0.5


def test_other_inputs_are_seen_and_are_not_the_candidate_s_doing() -> None:
    drift = watched(BRIGHT, BRIGHT, Settings(window=200, action="rollback"))
    assert {"inputs.mean", "inputs.low"} <= found(drift)
    assert not {"predictions.class", "predictions.value"} & found(drift)
    first = next(one for one in drift.findings if one.feature == "mean")
    assert first.psi is not None and first.psi > 1 and first.wasserstein is not None and first.wasserstein > 1
    assert first.text.startswith("inputs: mean differs from the training data (PSI ")
    asked = drift.asks()
    assert asked is not None and asked[0] == "warn"


@pytest.mark.parametrize(
    ("effect", "feature"), [(Effect(classes=(0.6, 0.1, 0.1, 0.1, 0.1)), "class"), (UNSURE, "value")]
)
@pytest.mark.parametrize("action", ["warn", "pause", "rollback"])
def test_other_predictions_are_seen_and_do_what_is_asked(effect: Effect, feature: str, action: str) -> None:
    drift = watched(effect, settings=Settings(window=200, action=action))  # type: ignore[arg-type]
    assert f"predictions.{feature}" in found(drift)
    assert "inputs.mean" not in found(drift)
    asked = drift.asks()
    assert asked is not None and asked[0] == action
    assert "the stable version's at the same time" in asked[1]


def test_a_small_difference_is_no_drift_however_certain() -> None:
    drift = watched(Effect(confidence=0.03), users=5000, settings=Settings(window=4000))
    assert drift.latest["predictions.value"]["p"] < 1e-4  # type: ignore[operator]
    assert drift.findings == []


def test_a_change_over_time_is_seen() -> None:
    """Both versions move alike: against each other nothing shows."""
    drift = simulated(1000, np.random.default_rng(0), SETTINGS, UNSURE, UNSURE, before=1000)
    assert {"change.candidate.value", "change.stable.value"} <= found(drift)
    assert "predictions.value" not in found(drift)


def test_without_a_reference_inputs_are_seen_against_their_past() -> None:
    rng = np.random.default_rng(0)
    drift = Drift(SETTINGS, None)
    drift.feed("stable", lines(1000, rng, role="stable"))
    assert drift.findings == []
    drift.feed("stable", lines(500, rng, BRIGHT, role="stable", begin=1e5))
    assert "change.inputs.mean" in found(drift)


def test_too_few_users_are_not_compared() -> None:
    drift = watched(BRIGHT, BRIGHT, users=49)
    assert drift.findings == [] and drift.latest == {} and drift.asks() is None


def test_what_was_not_measured_is_left_out() -> None:
    rng = np.random.default_rng(0)
    drift = Drift(SETTINGS, made_reference(rng))
    made = [
        {**line, "input_mean": [None], "output_class": None, "output_value": None} for line in lines(700, rng)
    ]
    drift.feed("candidate", made)  # type: ignore[arg-type]
    assert drift.findings == [] and "inputs.mean" not in drift.latest and "inputs.std" in drift.latest


def test_shadow_copies_are_predictions_and_no_inputs_of_users() -> None:
    rng = np.random.default_rng(0)
    drift = Drift(SETTINGS, made_reference(rng))
    drift.feed("stable", lines(700, rng, role="stable"))
    seen = len(drift.inputs.samples)
    copies = lines(700, rng, Effect(classes=(0.96, 0.01, 0.01, 0.01, 0.01)))
    drift.feed("candidate", [{**line, "route": "shadow", "shadow": True} for line in copies])
    assert len(drift.inputs.samples) == seen
    assert found(drift) == {"predictions.class"}


@pytest.mark.parametrize("route", ["header", "early", "anonymous"])
def test_users_who_came_otherwise_than_by_the_split_are_not_compared(route: str) -> None:
    """Testers and early users are others than the rest: their predictions say nothing of the version."""
    rng = np.random.default_rng(0)
    drift = Drift(SETTINGS, made_reference(rng))
    drift.feed("stable", lines(700, rng, role="stable"))
    seen = len(drift.inputs.samples)
    chosen = lines(700, rng, Effect(classes=(0.96, 0.01, 0.01, 0.01, 0.01)))
    drift.feed("candidate", [{**line, "route": route} for line in chosen])
    assert found(drift) == set() and "predictions.class" not in drift.latest
    assert drift.looks["inputs"] > 1 or len(drift.inputs.samples) > seen, "their inputs are inputs"


def test_all_windows_that_may_ever_come_share_the_level() -> None:
    drift = Drift(SETTINGS, None)
    for kind, features in (("inputs", 4), ("predictions", 2)):
        levels = [drift._level(kind, features) * features for _ in range(2000)]
        assert sum(levels) == pytest.approx(SETTINGS.level / 3, rel=1e-3)
        assert levels == sorted(levels, reverse=True)


def test_findings_are_bounded_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "MOST_FINDINGS", 3)
    drift = Drift(SETTINGS, None)
    for number in range(10):
        drift._found(Finding("change", "stable.value", number, None, None, None, None, None, 0.2))
    assert [one.timestamp for one in drift.findings] == [7, 8, 9]


def test_a_restored_monitor_goes_on() -> None:
    rng = np.random.default_rng(1)
    reference = made_reference(rng)
    made = {role: lines(500, rng, role=role) for role in ("stable", "candidate")}
    whole, parts = Drift(SETTINGS, reference), Drift(SETTINGS, reference)
    for begin in range(0, 1500, 100):
        for drift in (whole, parts):
            for role in ("stable", "candidate"):
                drift.feed(role, made[role][begin : begin + 100])  # type: ignore[arg-type]
        parts = Drift.restored(SETTINGS, reference, json.loads(json.dumps(parts.state())))
    assert parts.state() == whole.state()
    with pytest.raises(ValueError, match="another version"):
        Drift.restored(SETTINGS, reference, {})


def test_users_count_once_and_windows_end() -> None:
    window, sample = Window(100), Sample((1.0,), 0, 0.5)
    assert [window.add("a", sample), window.add("a", sample)] == [True, False]
    for _ in range(2000):
        window.add("a", sample)
    assert window.over and len(window.samples) == 1
    lowest = Lowest(100)
    for number in range(5000):
        lowest.add(f"{number % 1000}", sample)
    assert len(lowest.samples) == 100


def test_rates_of_the_distances() -> None:
    """p of the binned distance is never too small, ties or not; PSI and Wasserstein are 0 for the same."""
    rng = np.random.default_rng(0)
    reference = made_reference(rng).features
    small = 0
    for _ in range(200):
        values = rng.choice(reference["high"].quantiles, 300)
        small += measures.ks_binned(*measures.counted(values, reference["high"]))[1] <= 0.05
    assert small <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5
    counts = np.array(reference["mean"].counts, dtype=float)
    assert measures.psi(counts, counts) == 0 and measures.ks_binned(counts, counts) == (0.0, 1.0)
    assert measures.psi(counts, counts[::-1] * np.arange(1, 11)) > 0.2


def test_classes_that_one_version_never_predicts() -> None:
    size, p = measures.classes([0] * 60, [1] * 60)
    assert size > 5 and p < 1e-20
    assert measures.classes([2] * 60, [2] * 60) == (0.0, 1.0)


def test_rare_classes_are_taken_together() -> None:
    """Of each too few come for the test to hold: three of either version, whichever."""
    _, p = measures.classes([0] * 100 + [1, 2, 3], [0] * 100 + [4, 5, 6])
    assert p == pytest.approx(1.0)


def test_a_stream_of_equal_values_is_quiet() -> None:
    stream = Stream(0.001)
    assert all(stream.add(0.0) is None for _ in range(2000))


def test_logs_are_read_while_they_grow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = lines(30, rng)
    text = [orjson.dumps(line) + b"\n" for line in made]
    reader = PredictionReader(tmp_path)
    assert reader.read() == []
    first, second = tmp_path / "a-1.jsonl", tmp_path / "b-2.jsonl"
    first.write_bytes(b"".join(text[:5]) + text[5][:20])
    assert reader.read() == made[:5]
    with first.open("ab") as file:
        odd = orjson.dumps({**made[0], "shadow": None})
        file.write(text[5][20:] + b"{no line\n[]\n" + odd + b"\n" + text[6])
    second.write_bytes(text[7])
    assert same(reader.read(), made[5:8]) and reader.damaged == 3
    again = PredictionReader(tmp_path, json.loads(json.dumps(reader.positions)))
    assert again.read() == []
    first.unlink()
    assert again.read() == [] and list(again.positions) == ["b-2.jsonl"]


def same(one: list[Prediction], other: list[Prediction]) -> bool:
    return sorted(map(repr, one)) == sorted(map(repr, other))
