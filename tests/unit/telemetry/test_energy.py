"""Energy: arithmetic by hand, then through files and the library that stands in for NVML."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from standin import PART, UUID, card

from assay.telemetry import energy
from assay.telemetry.energy import cumulate, disagreement, integrate, net
from assay.telemetry.run import energy_by_epoch, epoch_ends, training_energy
from assay.telemetry.window import Series, Window

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_differences_of_a_counter_add_up():
    found = cumulate([(0, 1000), (1, 1500), (2, 1500), (4, 3000)], joules=1e-3, range_=None)
    assert found.points == [(0, 0), (1, 0.5), (2, 0.5), (4, 2.0)]
    assert found.joules == 2.0
    assert found.at(3) == 1.25 and found.at(0) == 0 and found.at(4) == 2.0
    assert found.at(2) == 0.5 and found.at(1.5) == 0.5
    assert found.at(4.4) == pytest.approx(2.3) and found.at(-0.4) == pytest.approx(-0.2), (
        "at the pace beside it"
    )
    assert found.at(4.6) is None and found.at(-0.6) is None


def test_a_counter_of_known_range_wraps():
    """RAPL: 900 -> 100 of 1000 µJ is 200 µJ."""
    found = cumulate([(0, 500), (1, 900), (2, 100), (3, 950), (4, 50)], joules=1e-6, range_=1000)
    assert found.joules == pytest.approx((400 + 200 + 850 + 100) * 1e-6)
    assert (found.wraps, found.filled, found.broken) == (2, 0, False)


def test_a_fall_of_unknown_range_is_filled_by_power_or_breaks_the_counter():
    readings = [(0.0, 5000.0), (1.0, 6000.0), (2.0, 300.0), (3.0, 1300.0)]
    power = [(0.0, 1.0), (1.0, 1.0), (2.0, 3.0), (3.0, 1.0)]
    found = cumulate(readings, joules=1e-3, range_=None, power=power)
    assert found.joules == pytest.approx(1 + (1 + 3) / 2 + 1) and found.filled == 1
    alone = cumulate(readings, joules=1e-3, range_=None)
    assert alone.joules is None and alone.broken and alone.at(1.0) is None


def test_a_counter_that_stands_still_while_power_is_drawn():
    readings = [(0.1 * i, 10.0 * min(i, 10)) for i in range(41)]
    busy = [(0.1 * i, 300.0) for i in range(41)]
    assert cumulate(readings, joules=1e-3, range_=None, power=busy).still == pytest.approx(3.0)
    idle = [(0.1 * i, 0.5) for i in range(41)]
    assert cumulate(readings, joules=1e-3, range_=None, power=idle).still == 0


def test_power_is_integrated_by_trapezoids():
    assert integrate([(0, 100), (1, 300), (4, 300)]) == 200 + 900
    assert integrate([(0, 100)]) is None and integrate([]) is None


def test_disagreement_and_net_energy():
    assert disagreement(110, 100) == pytest.approx(0.1) and disagreement(90, 100) == pytest.approx(0.1)
    assert disagreement(None, 100) is None and disagreement(1, 0) is None
    assert net(500, 60, 5) == 200 and net(500, None, 5) is None and net(None, 60, 5) is None


def test_nothing_sampled_has_no_energy():
    assert cumulate([], joules=1, range_=None).joules is None
    assert cumulate([(0, 5)], joules=1, range_=None).joules is None


def test_least_middle_and_greatest():
    series = Series()
    for value in (1980.4, 3, 1980.0, 1980.3, 0):
        series.add(value)
    found = series.range("MHz")
    assert (found.minimum, found.median, found.maximum, found.count) == (0, 1980, 1980.4, 5)
    assert Series().range("W") is None


def written(path, power, counter, *, seconds=4.0, others=0, rapl=None, interval=0.1, uuid=UUID):
    """A telemetry file: power in W and counter in mJ as functions of time."""
    lines = [
        {"event": "start", "interval_s": interval, "notes": [], "gpus": [{"uuid": uuid}], "cpu": {"rapl": {}}}
    ]
    if rapl:
        lines[0]["cpu"]["rapl"] = {"/package": rapl[1]}
    for i in range(int(seconds / interval) + 1):
        time = i * interval
        gpu = {"uuid": uuid, "power_w": power(time), "energy_mj": counter(time), "processes": 1 + others}
        cpu = {"rapl_uj": {"/package": rapl[0](time)}} if rapl else {}
        stamp = (START + timedelta(seconds=time)).isoformat()
        lines.append(
            {"event": "sample", "timestamp": stamp, "monotonic": 50 + time, "cpu": cpu, "gpus": [gpu]}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_counter_and_power_agree(tmp_path):
    path = written(tmp_path / "t", lambda t: 300, lambda t: 7e6 + 300e3 * t)
    summary = Window(path, idle_watts={UUID: 100.0}).summary()
    found = summary.gpus[0].energy
    assert (found.source, found.seconds) == ("counter", pytest.approx(4))
    assert found.joules == pytest.approx(1200) and found.integrated_joules == pytest.approx(1200)
    assert found.disagreement == pytest.approx(0, abs=1e-9)
    assert found.net_joules == pytest.approx(1200 - 400)
    assert summary.warnings == []


def test_disagreement_is_reported_with_both_numbers(tmp_path):
    path = written(tmp_path / "t", lambda t: 300, lambda t: 400e3 * t)
    summary = Window(path).summary()
    assert summary.gpus[0].energy.joules == pytest.approx(1600)
    assert (
        "1600.0 J" in summary.warnings[0]
        and "1200.0 J" in summary.warnings[0]
        and "33%" in summary.warnings[0]
    )
    within = Window(written(tmp_path / "u", lambda t: 300, lambda t: 325e3 * t)).summary()
    assert within.warnings == []


def test_a_counter_that_never_moves_is_not_believed(tmp_path):
    summary = Window(written(tmp_path / "t", lambda t: 300, lambda t: 5)).summary()
    found = summary.gpus[0].energy
    assert (found.source, found.joules) == ("power", pytest.approx(1200))
    assert any("stood still for 4.0 s" in text for text in summary.warnings)


def test_without_a_counter_power_is_integrated_and_without_both_there_is_null(tmp_path):
    found = Window(written(tmp_path / "t", lambda t: 300, lambda t: None)).summary().gpus[0].energy
    assert (found.source, found.joules, found.disagreement) == ("power", pytest.approx(1200), None)
    found = Window(written(tmp_path / "u", lambda t: None, lambda t: None)).summary().gpus[0].energy
    assert (found.source, found.joules) == (None, None)


def test_a_short_window_has_no_energy(tmp_path):
    path = written(tmp_path / "t", lambda t: 300, lambda t: 300e3 * t, seconds=1.9)
    found = Window(path).summary().gpus[0].energy
    assert (found.source, found.joules, found.integrated_joules) == (None, None, None)


def test_cpu_packages_are_read_across_their_wrap(tmp_path):
    """50 W from 9.9e8 µJ on, beginning anew at 1e9."""
    rapl = (lambda t: (990_000_000 + 50_000_000 * t) % 1_000_000_000, 1_000_000_000)
    summary = Window(written(tmp_path / "t", lambda t: None, lambda t: None, rapl=rapl)).summary()
    found = summary.cpu_energy[0]
    assert (found.device, found.source, found.wraps) == ("/package", "counter", 1)
    assert found.joules == pytest.approx(200)


def logged(path, ends):
    """A log whose training begins at the first of `ends` and whose epochs end at the others."""
    events = [
        {
            "event": "started" if i == 0 else "epoch",
            "attempt": 1,
            "timestamp": (START + timedelta(seconds=s)).isoformat(),
        }
        for i, s in enumerate(ends)
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return epoch_ends(path, 1)


def test_joules_per_epoch_sample_and_to_the_chosen_epoch(tmp_path):
    """100 W for 4 s, then 300 W: epochs from 1 to 4 and 4 to 7 s take 300 and 900 J."""

    def counter(t):
        return 1e3 * (100 * min(t, 4) + 300 * max(t - 4, 0))

    path = written(tmp_path / "t", lambda t: 100 if t < 4 else 300, counter, seconds=9)
    window = Window(path)
    ends = logged(tmp_path / "log", [1, 4, 7])
    found = training_energy(energy_by_epoch(window, window.summary(), ends), ends, samples=600, chosen=0)
    assert found["train_energy"].value == pytest.approx(1200)
    assert found["train_energy_per_epoch"].value == pytest.approx(600)
    assert found["train_energy_per_epoch"].samples == pytest.approx([300, 900])
    assert found["train_energy_per_sample"].value == pytest.approx(2)
    assert found["train_energy_to_chosen_epoch"].value == pytest.approx(300)
    assert found["train_seconds_to_chosen_epoch"].value == pytest.approx(3)


@pytest.mark.parametrize(
    "changes",
    [
        {"others": 1},
        {"uuid": PART},
        {"counter": lambda t: 5},
        {"counter": lambda t: None},
        {"counter": lambda t: 400e3 * t},
    ],
    ids=["shared", "a part of a card", "stuck", "without a counter", "contradicted"],
)
def test_energy_of_a_training_is_null_where_it_cannot_be_this_trainings(tmp_path, changes):
    counter = changes.pop("counter", lambda t: 300e3 * t)
    window = Window(written(tmp_path / "t", lambda t: 300, counter, seconds=9, **changes))
    ends = logged(tmp_path / "log", [1, 4, 7])
    found = training_energy(energy_by_epoch(window, window.summary(), ends), ends, samples=600, chosen=0)
    assert found.pop("train_seconds_to_chosen_epoch").value == pytest.approx(3)
    assert {one.value for one in found.values()} == {None}


def test_a_training_of_which_some_gpus_were_not_watched_has_seconds_and_no_energy(tmp_path):
    """One on several nodes."""
    found = training_energy(None, logged(tmp_path / "log", [1, 4, 7]), samples=600, chosen=0)
    assert found.pop("train_seconds_to_chosen_epoch").value == pytest.approx(3)
    assert {one.value for one in found.values()} == {None}


def test_a_training_that_did_not_complete_has_no_energy(tmp_path):
    window = Window(written(tmp_path / "t", lambda t: 300, lambda t: 300e3 * t, seconds=9))
    found = training_energy(energy_by_epoch(window, window.summary(), []), [], samples=None, chosen=None)
    assert {one.value for one in found.values()} == {None}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(energy, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(energy, "STILL_SECONDS", 0.2)


def test_through_nvml_the_counter_matches_power(sample, short):
    found = sample(card(), samples=20).summary
    taken = found.gpus[0].energy
    assert taken.source == "counter" and taken.joules == pytest.approx(taken.integrated_joules, rel=0.1)
    assert taken.joules == pytest.approx(400 * taken.seconds, rel=0.1) and found.warnings == []


def test_through_nvml_a_counter_that_stands_still(sample, short):
    found = sample(card(energy_scale=0), samples=20).summary
    taken = found.gpus[0].energy
    assert taken.source == "power" and taken.joules == pytest.approx(400 * taken.seconds, rel=0.1)
    assert any("stood still" in text for text in found.warnings)


def test_through_nvml_a_counter_that_wraps(sample, short):
    once = 100_000_000  # mJ, of which 400 W take four minutes: but for half a second it stands at its end
    found = sample(card(energy_start=once - 200_000, energy_wrap=once), samples=60).summary
    taken = found.gpus[0].energy
    assert taken.joules == pytest.approx(taken.integrated_joules, rel=0.1)
    assert any("fell" in text for text in found.warnings)


def test_through_nvml_a_counter_that_exaggerates(sample, short):
    found = sample(card(energy_scale=1.5), samples=20).summary
    assert any("apart, more than 10%" in text for text in found.warnings)
    assert found.gpus[0].energy.disagreement == pytest.approx(0.5, abs=0.1)
