"""Training steps of an arm: on a batch that stays on the device, and with their data loaded."""

from collections.abc import Callable, Mapping

from assay.config.schema import Profile
from assay.data.batches import Batches
from assay.profiling.clock import clock_of
from assay.profiling.exchange import Steps, Timings
from assay.profiling.subject import SEED, Subject, check_finite
from assay.profiling.timing import WARMUP_CALLS, Lap, Sampling, sample, time_steps
from assay.profiling.training_parts import PARTS
from assay.profiling.training_step import LoadedBatches, TrainingStep

CHUNK = 10
"""Steps in a row after which the device is waited for."""


class MeasuredTraining:
    """Steps of one subject, in this order: the first one, those without loading, those with it."""

    def __init__(self, subject: Subject, profile: Profile) -> None:
        self._subject, self._profile = subject, profile
        images, labels = subject.batch(subject.arm.training.batch_size)
        self._step = TrainingStep(subject.model, subject.called, subject.arm, images, labels)

    def first(self) -> float:
        """Seconds of the first step: it may compile or capture."""
        return self._subject.seconds(self._step)

    def without_loading(self) -> Timings:
        """Whole steps. Raises: Diverged for a loss that is not finite."""
        steps = self._sample(self._step)
        check_finite(self._step.loss, "training loss")
        return Timings.of([sum(parts.values()) for parts in steps])

    def with_loading(self, batches: Batches | None = None) -> Steps:
        """Whole steps and their parts. batches: those of a training unless given. Raises: Diverged."""
        subject = self._subject
        loaded = LoadedBatches(
            subject.batches() if batches is None else batches,
            subject.arm,
            seed=SEED,
            classes=len(subject.store.manifest.classes),
        )
        before, self._step.feed = self._step.feed, loaded
        try:
            steps = self._sample(self._step)
        finally:
            self._step.feed = before
            loaded.close()
        check_finite(self._step.loss, "training loss")
        return Steps.of(steps, PARTS, loaded.images_per_batch * subject.arm.training.accumulate)

    def _sample(self, step: Callable[[Lap], None]) -> list[Mapping[str, float]]:
        clock, profile = clock_of(self._subject.device), self._profile
        time_steps(step, clock, WARMUP_CALLS)
        found: list[Mapping[str, float]] = []

        def take() -> list[float]:
            found.extend(time_steps(step, clock, min(CHUNK, profile.training_steps)))
            return [sum(parts.values()) for parts in found[-min(CHUNK, profile.training_steps) :]]

        sample(take, Sampling(profile.training_steps, most_seconds=profile.seconds, width=profile.width))
        return found
