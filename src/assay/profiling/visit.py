"""One visit: a fresh process measures one arm once.

`python -m assay.profiling.visit` reads a `Request` as JSON from standard input and writes a `Result` to the file
that it names. It imports only what it needs: start-up is part of what it measures.
"""

import importlib
import sys
import time

from torch import Tensor

from assay.config.schema import Arm, Profile
from assay.data.store import Store, open_store
from assay.environment import capture, gpu_uuids
from assay.profiling.exchange import Request, Result, Timings, thinned
from assay.profiling.memory import PeakMemory, resident
from assay.profiling.subject import Subject, check_finite
from assay.profiling.summarise import summarise
from assay.profiling.timing import time_calls
from assay.records import write_atomically
from assay.telemetry.beside import Sampler
from assay.training.execution import apply
from assay.training.outcomes import Diverged, first_line, out_of_memory


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
        self.subject = Subject(self.arm, self.store, request.module_roots, self.device)

    def measure(self) -> None:
        inputs = self.subject.batch(max(self.profile.batch_sizes))[0]
        smallest = self.profile.batch_sizes[0]
        self.subject.model.eval()
        first = self.subject.inference(inputs[:smallest])()
        self.subject.synchronise()
        self.result.cold_start_s = time.monotonic() - self.request.launched
        check_finite(first, f"scores for a batch of {smallest}")
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

    def _measure_inference(self, size: int, inputs: Tensor) -> None:
        call = self.subject.inference(inputs[:size].contiguous(memory_format=self.subject.layout))
        seconds = time_calls(
            call,
            self.device,
            warmup_seconds=self.profile.warmup_seconds,
            seconds=self.profile.seconds,
            samples=self.profile.min_samples,
        )
        check_finite(call(), f"scores for a batch of {size}")
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
        images, labels = self.subject.batch(self.arm.training.batch_size)
        step = TrainingStep(self.subject.model, self.subject.called, self.arm, images, labels)
        seconds = time_calls(step, self.device, warmup_seconds=0.0, samples=self.profile.training_steps)
        check_finite(step.loss, "training loss")
        milliseconds = [round(value * 1e3, 6) for value in seconds]
        self.result.training_ms = Timings(summary=summarise(milliseconds), samples=thinned(milliseconds))
        peak, inference = self.memory.read(), self.result.inference_peak_memory_mb
        self.result.peak_memory_mb = None if peak is None or inference is None else max(peak, inference)

    def _count(self) -> None:
        from assay.models.cost import count_flops, count_parameters

        self.result.parameters = count_parameters(self.subject.model)
        if self.request.flops:
            height, width, channels = self.store.manifest.image_shape
            side = self.arm.model.image_size
            shape = (channels, side, side) if side else (channels, height, width)
            self.result.flops = count_flops(self.subject.model, shape)


if __name__ == "__main__":
    sys.exit(main())
