"""Inference at one batch size, and at the largest one that fits."""

import gc
from statistics import median

from torch import Tensor

from assay.config.schema import LargestBatch, Profile
from assay.profiling.clock import clock_of
from assay.profiling.exchange import Largest, Timings
from assay.profiling.largest import Cost, Found, find_largest
from assay.profiling.memory import WholePeak, at_most, room_mb
from assay.profiling.subject import Subject, check_finite
from assay.profiling.timing import time_calls
from assay.training.outcomes import out_of_memory

_PROBE_CALLS = 3
_LEAST_SAMPLES = 6
"""At the largest batch: the fewest for which there is an interval of the median."""
_REFUSED = ("bad_alloc", "could not create", "could not execute")
"""What C++ and oneDNN say where PyTorch's own message does not come up."""


def measure_inference(subject: Subject, profile: Profile, images: Tensor) -> tuple[Timings, float]:
    """Timings of a batch [B, C, H, W], and the seconds of its first call: it may compile or capture.

    Raises: Diverged for scores that are not finite.
    """
    call = subject.inference(images)
    first = subject.seconds(call)
    seconds = time_calls(
        call,
        subject.device,
        warmup_seconds=profile.warmup_seconds,
        seconds=profile.least_seconds,
        most_seconds=profile.seconds,
        width=profile.width,
        samples=profile.min_samples,
    )
    check_finite(call(), f"scores for a batch of {len(images)}")
    return Timings.of(seconds), first


def measure_largest(
    subject: Subject, profile: Profile, measured: dict[int, Timings], bound_mb: float | None, size: int | None
) -> Largest | None:
    """Throughput at the largest batch that fits; None where not even the largest of the profile does.

    measured: what is known by batch size. bound_mb: the job's bound on memory. size: what an earlier visit found;
    None: it is sought. Raises: ValueError where the process's memory cannot be read.
    """
    room = room_mb(subject.device, bound_mb)
    if room is None:
        raise ValueError("this system does not tell how much memory there is")
    found = None
    if size is None:
        found = _search(subject, profile.largest_batch, max(measured), room)
        if found is None:
            return None
        size = found.size
    with at_most(subject.device, room):
        timings = measured.get(size) or _timings(subject, profile, size)
    return None if timings is None else Largest(size=size, timings=timings, search=found)


def _search(subject: Subject, settings: LargestBatch, start: int, room_mb: float) -> Found | None:
    bound = room_mb * settings.memory
    with at_most(subject.device, bound):
        probe = _Probe(subject)
        probe(1)  # what the first call under the bound costs once is no size's
        return find_largest(
            probe,
            start,
            bound_mb=bound,
            most_seconds=settings.seconds,
            least_gain=settings.gain if subject.device.type == "cpu" else None,
        )


def _timings(subject: Subject, profile: Profile, size: int) -> Timings | None:
    """None where the batch does not fit after all."""
    try:
        call = subject.inference(subject.batch(size)[0])
        return Timings.of(
            time_calls(
                call,
                subject.device,
                warmup_seconds=0.0,
                seconds=profile.least_seconds,
                most_seconds=profile.seconds,
                width=profile.width,
                samples=_LEAST_SAMPLES,
            )
        )
    except (MemoryError, RuntimeError) as error:
        if not _refused(error):
            raise
    return None


class _Probe:
    """Runs a batch a few times, and says what it took or that it did not fit."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._peak = subject, WholePeak(subject.device)

    def __call__(self, size: int) -> Cost | None:
        """Raises: whatever else the model raises at this size; ValueError where memory cannot be read."""
        gc.collect()
        self._peak.begin()
        try:
            seconds = self._seconds(size)
        except (MemoryError, RuntimeError) as error:
            if not _refused(error):
                raise
            return None
        held = self._peak.read()
        if held is None:
            raise ValueError("this system does not tell how much memory a process held")
        return Cost(size=size, memory_mb=held, seconds=seconds)

    def _seconds(self, size: int) -> float:
        call = self._subject.inference(self._subject.batch(size)[0])
        call()
        clock = clock_of(self._subject.device)
        marks = [clock.mark()]
        for _ in range(_PROBE_CALLS):
            call()
            marks.append(clock.mark())
        return max(median(clock.seconds(marks)), 1e-9)


def _refused(error: BaseException) -> bool:
    return out_of_memory(error) or any(words in str(error) for words in _REFUSED)
