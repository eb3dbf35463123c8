"""What Prometheus sees of one version: few names, few labels, summed over its workers."""

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from assay.release.security.sources import Standing

BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0)
"""Seconds."""
CODES = (
    *("ok", "json", "shape", "number", "range", "samples", "content_type", "body_size", "body_time"),
    *("identity", "signature", "limit", "method", "overloaded", "timeout", "non_finite", "model_error"),
)
OTHER = "other"
"""Every outcome of a request; what is none of them is counted as `other`, so that no caller can make labels."""


class Metrics:
    """Of one worker, which calls `flush` ten times a second. Where PROMETHEUS_MULTIPROC_DIR is set, `text` sums over the workers that share it."""

    def __init__(self, name: str, version: str, role: str) -> None:
        self._registry = registry = CollectorRegistry()
        requests = Counter(
            "assay_serving_requests", "Requests to /predict by outcome.", ["code"], registry=registry
        )
        self._requests = {code: requests.labels(code) for code in (*CODES, OTHER)}
        self._seconds = Histogram(
            "assay_serving_seconds",
            "From the whole request to its answer.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._waited = Histogram(
            "assay_serving_queue_seconds", "Waiting for the model.", buckets=BUCKETS, registry=registry
        )
        self._samples = Counter("assay_serving_samples", "Samples that the model scored.", registry=registry)
        lines = Counter(
            "assay_serving_log_lines",
            "Of the prediction log, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._lines = {outcome: lines.labels(outcome) for outcome in ("written", "dropped")}
        copies = Counter(
            "assay_serving_copies",
            "Of requests, for the shadow, by what became of them here.",
            ["outcome"],
            registry=registry,
        )
        self._copies = {outcome: copies.labels(outcome) for outcome in ("handed", "lost")}
        info = Gauge(
            "assay_serving_model",
            "The version that this is; always 1.",
            ["model", "version", "role"],
            registry=registry,
            multiprocess_mode="max",
        )
        info.labels(name, version, role).set(1)
        self._keys: Callable[[], Mapping[str, Standing]] | None = None
        self._seen: list[tuple[str, float, float | None, int]] = []
        self._copied: Tally[str] = Tally()

    def watch_keys(
        self, standings: Callable[[], Mapping[str, Standing]], rotations: Mapping[str, float]
    ) -> None:
        """Tell how files of keys stand, with every flush. rotations: seconds after which one is to be written anew."""
        self._keys = standings
        self._usable, self._changed, rotation = (
            Gauge(
                f"assay_serving_keys_{name}",
                text,
                ["file"],
                registry=self._registry,
                multiprocess_mode="mostrecent",
            )
            for name, text in (
                ("usable", "Whether the file of keys can be used; 0: what was last good stays in use."),
                ("changed_timestamp_seconds", "When the keys in use were written."),
                ("rotation_seconds", "How old they may become, by the release file."),
            )
        )
        for file, seconds in rotations.items():
            rotation.labels(file).set(seconds)

    def _tell_keys(self) -> None:
        for file, standing in self._keys().items() if self._keys is not None else ():
            self._usable.labels(file).set(standing.usable)
            if standing.changed is not None:
                self._changed.labels(file).set(standing.changed)

    def count(self, code: str, seconds: float, queued: float | None, samples: int) -> None:
        """One request, shown after the next `flush`. queued: seconds; None: it never waited for the model."""
        self._seen.append((code, seconds, queued, samples))

    def count_lines(self, outcome: str, count: int) -> None:
        """Of the prediction log, `written` or `dropped`; by any thread."""
        self._lines[outcome].inc(count)

    def count_copy(self, outcome: str) -> None:
        """Of a request, `handed` to the shadow or `lost`; shown after the next `flush`."""
        self._copied[outcome] += 1

    def flush(self) -> None:
        """What was counted since the last time goes to where it is read: each value costs as much as the rest of a request."""
        self._tell_keys()
        copied, self._copied = self._copied, Tally()
        for outcome, count in copied.items():
            self._copies[outcome].inc(count)
        seen, self._seen = self._seen, []
        if not seen:
            return
        for code, count in Tally(code if code in self._requests else OTHER for code, *_ in seen).items():
            self._requests[code].inc(count)
        self._samples.inc(sum(samples for *_, samples in seen))
        _observe(self._seconds, [seconds for _, seconds, _, _ in seen])
        _observe(self._waited, [queued for _, _, queued, _ in seen if queued is not None])

    def text(self) -> bytes:
        self.flush()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _observe(histogram: Histogram, values: list[float]) -> None:
    """What `Histogram.observe` does to each value, done to all at once; a test compares both."""
    histogram._sum.inc(sum(values))
    for place, count in Tally(bisect_left(BUCKETS, value) for value in values).items():
        histogram._buckets[place].inc(count)
