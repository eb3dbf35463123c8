"""One visit: a fresh process measures one arm once.

`python -m assay.profiling.visit` reads a `Request` as JSON from standard input and writes a `Result` to the file
that it names. It imports only what it needs: start-up is part of what it measures.
"""

import importlib
import os
import sys
import time

import torch

from assay.config.arm import Arm
from assay.config.schema import Profile
from assay.data.store import Store, open_store
from assay.environment import capture, gpu_uuids
from assay.profiling.exchange import Request, Result
from assay.profiling.inference import measure_inference, measure_largest
from assay.profiling.memory import PeakMemory, resident
from assay.profiling.peaks import peak
from assay.profiling.subject import Subject, check_finite
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
        result.message = _told(error)
        if result.outcome == "failed":
            import traceback

            traceback.print_exc()
    _write(request, result)
    return 0


def _write(request: Request, result: Result) -> None:
    write_atomically(request.result, result.model_dump_json().encode())


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


class _Visit:
    """The measurements, in order: cold start, inference per batch size, training steps, counts, the largest batch."""

    def __init__(self, request: Request, result: Result) -> None:
        self.request, self.result = request, result
        self.arm: Arm = request.arm
        self.profile: Profile = request.profile
        self.device = apply(self.arm.execution)
        self.store: Store = open_store(request.data)
        self.memory = PeakMemory(self.device)
        self.subject = Subject(self.arm, self.store, request.module_roots, self.device)
        self.subject.synchronise()
        result.start_s = time.monotonic() - request.launched
        self.sampler = Sampler(
            request.telemetry,
            interval=request.telemetry_interval,
            gpus=gpu_uuids(self.device),
            identity={"visit": request.visit, "attempt": request.attempt},
        )
        self.compiling: list[float] = []
        """By how many seconds each first call took longer than the median one."""

    def measure(self) -> None:
        inputs = self.subject.batch(max(self.profile.batch_sizes))[0]
        smallest = self.profile.batch_sizes[0]
        self.subject.model.eval()
        before = time.monotonic()
        first = self.subject.inference(inputs[:smallest])()
        self.subject.synchronise()
        self.result.cold_start_s = time.monotonic() - self.request.launched
        self.result.first_call_s = time.monotonic() - before
        check_finite(first, f"scores for a batch of {smallest}")
        with self.sampler:
            for size in self.profile.batch_sizes:
                images = inputs[:size].contiguous(memory_format=self.subject.layout)
                self.sampler.mark("before", measurement=f"inference@{size}")
                self.result.inference_ms[size], seconds = measure_inference(
                    self.subject, self.profile, images
                )
                self.sampler.mark("after", measurement=f"inference@{size}")
                self._note_first(
                    self.result.first_call_s if size == smallest else seconds,
                    self.result.inference_ms[size].summary.median,
                )
            self.result.inference_peak_memory_mb = self.result.peak_memory_mb = self.memory.read()
            if self.profile.training_steps:
                self._measure_training()
        self.result.telemetry_notes = self.sampler.notes
        self._count()
        if self.profile.largest_batch.enabled:
            del inputs, first, images
            self._measure_largest()

    def _note_first(self, seconds: float, median_ms: float) -> None:
        if self.arm.execution.compile or self.arm.execution.cuda_graphs:
            self.compiling.append(max(0.0, seconds - median_ms / 1e3))

    def _measure_training(self) -> None:
        from assay.profiling.training import MeasuredTraining

        before = resident()
        importlib.import_module("torch._dynamo")  # every optimiser imports it at its first use

        after = resident()
        self.memory.discount(None if before is None or after is None else after - before)
        self.sampler.mark("before", measurement="training")
        training = MeasuredTraining(self.subject, self.profile)
        first = training.first()
        self.result.training_ms = training.without_loading()
        self.sampler.mark("after", measurement="training")
        self._note_first(first, self.result.training_ms.summary.median)
        peak, inference = self.memory.read(), self.result.inference_peak_memory_mb
        self.result.peak_memory_mb = None if peak is None or inference is None else max(peak, inference)
        self.sampler.mark("before", measurement="training with loading")
        self.result.loaded_training = training.with_loading()
        self.sampler.mark("after", measurement="training with loading")

    def _count(self) -> None:
        from assay.models.cost import count_flops, count_parameters, model_bytes

        if self.compiling:
            self.result.compile_s = sum(self.compiling)
        if self.device.type == "cuda":
            self.result.reserved_memory_mb = torch.cuda.max_memory_reserved(self.device) / 2**20
        self.result.parameters = count_parameters(self.subject.model)
        self.result.model_size_mb = model_bytes(self.subject.model) / 2**20
        if self.request.flops:
            height, width, channels = self.store.manifest.image_shape
            side = self.arm.model.image_size
            shape = (channels, side, side) if side else (channels, height, width)
            self.result.flops = count_flops(self.subject.model, shape)
        environment = capture(threads=self.arm.execution.threads, device=self.device)
        self.result.environment = environment
        gpu = environment.device.name if environment.device and self.device.type == "cuda" else None
        known = peak(gpu, self.arm.execution)
        if known is not None:
            self.result.peak_flops, self.result.peak_source = known

    def _measure_largest(self) -> None:
        """Last, and after all else was written: a system that kills what asks for memory takes nothing else along.

        Without telemetry: only the first visit of an arm searches, and is to be judged by what it has in common with others.
        """
        self.result.unfinished = "the search for the largest batch"
        _write(self.request, self.result)
        self.subject.model.eval()
        try:
            self.result.largest = measure_largest(
                self.subject,
                self.profile,
                self.result.inference_ms,
                self.request.memory_mb,
                self.request.largest,
            )
        except Exception as error:  # the model may not take such a batch at all
            self.result.notes.append(f"largest batch: not measured: {_told(error)}")
        self.result.unfinished = None


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # An orderly exit frees, object by object, what PyTorch loaded: half a second in which nothing is done.
    os._exit(status)
