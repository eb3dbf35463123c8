"""One visit: a fresh process measures one arm once.

`python -m assay.profiling.visit` reads a `Request` as JSON from standard input and writes a `Result` to the file
that it names. It imports only what it needs: start-up is part of what it measures.
"""

import importlib
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay.config.schema import Arm, Augmentation, Profile
from assay.data.batches import Batches
from assay.data.store import Store, open_store
from assay.environment import capture, gpu_uuids
from assay.models.build import build
from assay.profiling.exchange import Request, Result, Timings, thinned
from assay.profiling.memory import PeakMemory, resident
from assay.profiling.summarise import summarise
from assay.profiling.timing import time_calls
from assay.records import write_atomically
from assay.telemetry.beside import Sampler
from assay.training.execution import apply, autocast, compiled, place
from assay.training.outcomes import Diverged, first_line, out_of_memory

SEED = 0
"""Of initial weights and of the choice of images: cost does not depend on it."""


def main() -> int:
    request = Request.model_validate_json(sys.stdin.read())
    result = Result()
    try:
        _Visit(request, result).measure()
    except Diverged as error:
        result.outcome, result.message = "diverged", str(error)
    except Exception as error:
        result.outcome = "out_of_memory" if out_of_memory(error) else "failed"
        result.message = f"{type(error).__name__}: {first_line(error)}"
        if result.outcome == "failed":
            import traceback

            traceback.print_exc()
    write_atomically(request.result, result.model_dump_json().encode())
    return 0


class _Visit:
    """The measurements, in order: cold start, inference per batch size, training steps, counts."""

    def __init__(self, request: Request, result: Result) -> None:
        self.request, self.result = request, result
        self.arm: Arm = request.arm
        self.profile: Profile = request.profile
        self.device = apply(self.arm.execution)
        self.store: Store = open_store(request.data)
        self.memory = PeakMemory(self.device)
        self.model = self._build()
        self.called = compiled(self.model, self.arm.execution, self.device)

    def measure(self) -> None:
        inputs = self._batch(max(self.profile.batch_sizes))[0]
        smallest = self.profile.batch_sizes[0]
        self.model.eval()
        first = self._inference(inputs[:smallest])()
        self._synchronise()
        self.result.cold_start_s = time.monotonic() - self.request.launched
        _check(first, f"scores for a batch of {smallest}")
        sampler = Sampler(
            self.request.telemetry,
            interval=self.request.telemetry_interval,
            gpus=gpu_uuids(self.device),
            identity={"visit": self.request.visit, "attempt": self.request.attempt},
        )
        with sampler:
            for size in self.profile.batch_sizes:
                sampler.mark("before", measurement=f"inference@{size}")
                self._measure_inference(size, inputs)
                sampler.mark("after", measurement=f"inference@{size}")
            self.result.inference_peak_memory_mb = self.result.peak_memory_mb = self.memory.read()
            if self.profile.training_steps:
                sampler.mark("before", measurement="training")
                self._measure_training()
                sampler.mark("after", measurement="training")
        self.result.telemetry_notes = sampler.notes
        self._count()
        self.result.environment = capture(threads=self.arm.execution.threads, device=self.device)

    def _build(self) -> nn.Module:
        manifest = self.store.manifest
        model = build(
            self.arm.model,
            image_shape=manifest.image_shape,
            classes=len(manifest.classes),
            seed=SEED,
            module_roots=self.request.module_roots,
        )
        return place(model, self.arm.execution, self.device)

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images [size, C, H, W] and labels [size] of the training split, repeated where it is smaller."""
        batches = Batches(
            self.store.split("train"),
            batch_size=size,
            device=self.device,
            mean=self.store.manifest.mean,
            std=self.store.manifest.std,
            image_size=self.arm.model.image_size,
            channels_last=self.arm.execution.channels_last,
            resident=self.device.type != "cuda",
        )
        classes = len(self.store.manifest.classes)
        batch = next(batches.epoch(SEED, 0, Augmentation(), classes=classes))
        if len(batch.labels) == size:
            return batch.images, batch.labels
        chosen = torch.arange(size, device=self.device) % len(batch.labels)
        layout = torch.channels_last if self.arm.execution.channels_last else torch.contiguous_format
        return batch.images[chosen].contiguous(memory_format=layout), batch.labels[chosen]

    def _inference(self, images: Tensor) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.inference_mode(), autocast(self.arm.execution, self.device):
                scores: Tensor = self.called(images)
            return scores

        return call

    def _measure_inference(self, size: int, inputs: Tensor) -> None:
        layout = torch.channels_last if self.arm.execution.channels_last else torch.contiguous_format
        call = self._inference(inputs[:size].contiguous(memory_format=layout))
        seconds = time_calls(
            call,
            self.device,
            warmup_seconds=self.profile.warmup_seconds,
            seconds=self.profile.seconds,
            samples=self.profile.min_samples,
        )
        _check(call(), f"scores for a batch of {size}")
        milliseconds = [round(value * 1e3, 6) for value in seconds]
        self.result.inference_ms[size] = Timings(
            summary=summarise(milliseconds), samples=thinned(milliseconds)
        )

    def _measure_training(self) -> None:
        from assay.profiling.training_step import TrainingStep

        before = resident()
        importlib.import_module("torch._dynamo")  # every optimiser imports it at its first use

        after = resident()
        self.memory.discount(None if before is None or after is None else after - before)
        images, labels = self._batch(self.arm.training.batch_size)
        step = TrainingStep(self.model, self.called, self.arm, images, labels)
        seconds = time_calls(step, self.device, warmup_seconds=0.0, samples=self.profile.training_steps)
        _check(step.loss, "training loss")
        milliseconds = [round(value * 1e3, 6) for value in seconds]
        self.result.training_ms = Timings(summary=summarise(milliseconds), samples=thinned(milliseconds))
        peak, inference = self.memory.read(), self.result.inference_peak_memory_mb
        self.result.peak_memory_mb = None if peak is None or inference is None else max(peak, inference)

    def _count(self) -> None:
        from assay.models.cost import count_flops, count_parameters

        self.result.parameters = count_parameters(self.model)
        if self.request.flops:
            height, width, channels = self.store.manifest.image_shape
            side = self.arm.model.image_size
            shape = (channels, side, side) if side else (channels, height, width)
            self.result.flops = count_flops(self.model, shape)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _check(values: Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise Diverged(f"{name}: not finite")


if __name__ == "__main__":
    sys.exit(main())
