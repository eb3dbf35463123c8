"""What Prometheus sees of one version: few names, few labels, summed over its workers."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0)
"""Seconds."""
CODES = (
    *("ok", "json", "shape", "number", "range", "samples", "content_type", "body_size", "body_time"),
    *("identity", "signature", "limit", "method", "overloaded", "timeout", "non_finite", "model_error"),
)
"""Every outcome of a request; others are counted as `other`, so that no caller can make labels."""


class Metrics:
    """Of one worker. Where PROMETHEUS_MULTIPROC_DIR is set, `text` sums over the workers that share it."""

    def __init__(self, name: str, version: str, role: str) -> None:
        self._registry = registry = CollectorRegistry()
        requests = Counter(
            "assay_serving_requests", "Requests to /predict by outcome.", ["code"], registry=registry
        )
        self._requests = {code: requests.labels(code) for code in (*CODES, "other")}
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
        info = Gauge(
            "assay_serving_model",
            "The version that this is; always 1.",
            ["model", "version", "role"],
            registry=registry,
            multiprocess_mode="max",
        )
        info.labels(name, version, role).set(1)

    def count(self, code: str, seconds: float, queued: float | None, samples: int) -> None:
        """One request. queued: seconds; None: it never waited for the model."""
        (self._requests.get(code) or self._requests["other"]).inc()
        self._seconds.observe(seconds)
        if queued is not None:
            self._waited.observe(queued)
        if samples:
            self._samples.inc(samples)

    def text(self) -> bytes:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
