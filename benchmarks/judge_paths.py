"""The judge's tests run over many simulated releases at once, event by event, and other judges over the same events.

The tests are those of `assay.release.judge.evidence`; a test of the repository holds that a whole judge, fed with the same
requests line by line, comes to the same numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from judge_traffic import Bools, Floats, Ints, Visits

from assay.release.judge import quantiles
from assay.release.judge.evidence import ODDS, LabelTest, MarginTest, ScoreTest
from assay.release.judge.metrics import _THRESHOLD_EVERY
from assay.release.judge.step import MOST_LATENCIES

NEVER = math.inf


@dataclass(frozen=True)
class Compared:
    """What counts of one step: the events of users between the earlier share and 1, in the judge's order."""

    share: float
    """Of the candidate among those compared."""
    first_errors: tuple[Floats, Bools]
    """Times, and whether the candidate's."""
    windows: tuple[Floats, Bools, Floats, Floats]
    """Times of the windows' ends, labels, whether there was an error, and value (NaN: none)."""
    latencies: tuple[Floats, Bools, list[Ints]]
    """Times, labels, bins of each user."""
    arrivals: tuple[Floats, Bools]


def compared(one: Visits, low: float, bucket: Ints, duration: float, window: float) -> Compared:
    """low: share of the step before. Requests after the step's end are not seen."""
    taken = bucket[one.user] >= low * 2**32
    seen = taken[one.of] & (one.time < duration)
    of, time, failed = one.of[seen], one.time[seen], one.failed[seen]
    within = time < one.arrival[of] + window
    visits_ = np.arange(len(one.user))
    first = np.full(len(visits_), NEVER)
    np.minimum.at(first, of[failed], time[failed])
    wrong = np.zeros(len(visits_))
    wrong[of[failed & within]] = 1.0
    ends = one.arrival + window
    closed = visits_[taken & (ends < time.max(initial=0.0))]
    erring = visits_[np.isfinite(first)]
    erring = erring[np.argsort(first[erring], kind="stable")]
    return Compared(
        share=(one.share - low) / (1 - low),
        first_errors=(first[erring], one.candidate[erring]),
        windows=(ends[closed], one.candidate[closed], wrong[closed], one.value[closed]),
        latencies=_latencies(one, of, time, one.seconds[seen], ~failed & within, time.max(initial=0.0), ends),
        arrivals=(one.arrival[taken], one.candidate[taken]),
    )


def _latencies(
    one: Visits, of: Ints, time: Floats, seconds: Floats, counts: Bools, last: float, ends: Floats
) -> tuple[Floats, Bools, list[Ints]]:
    """A user counts at the eighth latency within the window, or at its end."""
    order = np.lexsort((time[counts], of[counts]))
    of, time, seconds = of[counts][order], time[counts][order], seconds[counts][order]
    logs = np.log(np.maximum(seconds, quantiles.SHORTEST) / quantiles.SHORTEST) / math.log(quantiles.RATIO)
    bins = np.minimum(quantiles.BINS - 1, logs.astype(np.int64) + 1)
    visits_, begins, counts_ = np.unique(of, return_index=True, return_counts=True)
    full = counts_ >= MOST_LATENCIES
    done = np.where(full, time[np.minimum(begins + MOST_LATENCIES - 1, len(time) - 1)], ends[visits_])
    kept = np.flatnonzero(done <= last)
    kept = kept[np.lexsort((full[kept], done[kept]))]
    lists = [bins[begins[i] : begins[i] + min(counts_[i], MOST_LATENCIES)] for i in kept]
    return done[kept], one.candidate[visits_[kept]], lists


def padded(columns: Sequence[Floats | Bools], fill: float = 0.0) -> Floats:
    """[events, releases]."""
    table = np.full((max((len(one) for one in columns), default=0), len(columns)), fill)
    for place, one in enumerate(columns):
        table[: len(one), place] = one
    return table


class Crossing:
    """When each release's evidence first reaches a bound; `NEVER` where it does not."""

    def __init__(self, level: float, releases: int) -> None:
        self.bound = math.log(1 / level)
        self.at: Floats = np.full(releases, NEVER)

    def look(self, log_e: Floats, times: Floats) -> None:
        """times: of this event, `NEVER` for releases that have no more."""
        self.at = np.where((log_e >= self.bound) & (times < self.at), times, self.at)


def label_test(events: Sequence[tuple[Floats, Bools]], share: float, level: float) -> Floats:
    """Times at which errors turn back: of each user's first one, or, of a broken judge, of every one."""
    test, crossing = LabelTest(len(ODDS), (len(events),)), Crossing(level, len(events))
    labels = padded([candidate for _, candidate in events])
    times = padded([time for time, _ in events], NEVER)
    for label, time in zip(labels, times, strict=True):
        test.update(label > 0, share, np.log(ODDS) * np.isfinite(time)[:, None])
        crossing.look(test.log_e, time)
    return crossing.at


def score_test(events: Sequence[tuple[Floats, Bools, Floats]], share: float, level: float) -> Floats:
    """Times at which an outcome in [0, 1] turns back."""
    test, crossing = ScoreTest((len(events),)), Crossing(level, len(events))
    tables = [
        padded([event[column] for event in events], fill) for column, fill in ((0, NEVER), (1, 0), (2, 0))
    ]
    for time, label, outcome in zip(*tables, strict=True):
        test.score(label > 0, share, outcome)
        crossing.look(test.log_e, time)
    return crossing.at


def slow_shares(times: Floats, labels: Bools, bins: list[Ints], level: float) -> tuple[Floats, Bools, Floats]:
    """The outcome of the latency's test: of each user the share above the quantile of all users before."""
    weights = np.zeros(quantiles.BINS)
    shares = np.full(len(bins), np.nan)
    for begin in range(0, len(bins), _THRESHOLD_EVERY):
        block = bins[begin : begin + _THRESHOLD_EVERY]
        lengths = np.array([len(one) for one in block])
        flat = np.concatenate(block)
        if begin:
            threshold = quantiles.quantile(np.cumsum(weights), begin, level)
            ends = np.cumsum(lengths) - lengths
            shares[begin : begin + len(block)] = np.add.reduceat(flat > threshold, ends) / lengths
        np.add.at(weights, flat, np.repeat(1 / lengths, lengths))
    told = ~np.isnan(shares)
    return times[told], labels[told], shares[told]


def margin_test(
    events: Sequence[tuple[Floats, Bools, Floats]], share: float, level: float, margin: float
) -> Floats:
    """Times at which "worse by the margin or more" is first rejected."""
    test, crossing = MarginTest(np.array([margin]), (len(events),)), Crossing(level, len(events))
    tables = [
        padded([event[column] for event in events], fill) for column, fill in ((0, NEVER), (1, 0), (2, 0))
    ]
    for time, label, outcome in zip(*tables, strict=True):
        test.update(label > 0, share, outcome)
        crossing.look(test.log_e()[:, 0], time)
    return crossing.at


def no_slower(
    events: tuple[Floats, Bools, list[Ints]], level: float, error: float, margin: float, every: float = 30.0
) -> float:
    """When one release's candidate is first shown to be no slower within the margin, looked at `every` seconds."""
    times, labels, bins = events
    versions = (quantiles.Latencies(), quantiles.Latencies())
    following = every
    for time, label, own in zip(times.tolist(), labels.tolist(), bins, strict=True):
        while time >= following:
            if quantiles.no_slower(*versions, level, error, margin):
                return following
            following += every
        versions[label].add(own.tolist())
    return NEVER


def by_minute(one: Visits, duration: float) -> tuple[Floats, Floats]:
    """Requests and failed ones `[minutes, version]`, for judges that count requests."""
    minute = (one.time // 60).astype(np.int64)
    label = one.candidate[one.of].astype(np.int64)
    minutes = int(duration // 60)
    seen = minute < minutes
    place = minute[seen] * 2 + label[seen]
    counts = np.bincount(place, minlength=2 * minutes).reshape(minutes, 2)
    failed = np.bincount(place, one.failed[seen], minlength=2 * minutes).reshape(minutes, 2)
    return counts.astype(np.float64), failed


def fixed_threshold(one: Visits, duration: float, most: float, checks: int) -> float:
    """Flagger's way: so many minutes in which more than `most` of the candidate's requests failed."""
    counts, failed = by_minute(one, duration)
    bad = np.flatnonzero(failed[:, 1] > most * counts[:, 1])
    return 60.0 * (bad[checks - 1] + 1) if len(bad) >= checks else NEVER


def z_test(one: Visits, duration: float, level: float) -> float:
    """Two proportions over all requests so far, one-sided, looked at each minute."""
    counts, failed = (np.cumsum(table, axis=0) for table in by_minute(one, duration))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares, pooled = failed / counts, failed.sum(1) / counts.sum(1)
        z = (shares[:, 1] - shares[:, 0]) / np.sqrt(pooled * (1 - pooled) * (1 / counts).sum(1))
    bad = np.flatnonzero(z > NormalDist().inv_cdf(1 - level))
    return 60.0 * (bad[0] + 1) if len(bad) else NEVER


def every_error(one: Visits, duration: float) -> tuple[Floats, Bools]:
    """All failed requests in order: what a test that counts requests bets on."""
    failed = np.flatnonzero(one.failed & (one.time < duration))
    failed = failed[np.argsort(one.time[failed], kind="stable")]
    return one.time[failed], one.candidate[one.of[failed]]
