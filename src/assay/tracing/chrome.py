"""Recording calls with PyTorch's profiler, and the chrome trace that Perfetto opens."""

import gzip
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from assay.tracing.kernels import TraceError

WARMUP_CALLS = 3
"""Before the profiler looks: the first calls choose kernels and compile."""
STEPS = 5
"""Recorded calls; one more is thrown away, in which the profiler itself warms up."""
_NOT_OURS = ("traceName", "ERROR", "WARNING")
"""Entries that name a temporary file, or repeat what the profiler already wrote to the log."""


def record(call: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """A chrome trace of `STEPS` calls, each waited for. Raises: TraceError; whatever the call raises."""
    for _ in range(WARMUP_CALLS):
        call()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    plan = schedule(wait=0, warmup=1, active=STEPS, repeat=1)
    with profile(activities=activities, schedule=plan, record_shapes=True) as profiler:
        for _ in range(1 + STEPS):
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            profiler.step()
    with tempfile.TemporaryDirectory(prefix="assay-trace-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return tidied(path.read_text(encoding="utf-8", errors="replace"))


def tidied(text: str) -> dict[str, Any]:
    """What the profiler wrote, as JSON that any reader takes: it has been seen with raw control characters, infinities,
    negative durations and threads without a name.

    Raises: TraceError where it is not JSON even so, or holds no events.
    """
    try:
        trace = json.loads(text, strict=False, parse_constant=str)
        events = [event for event in trace["traceEvents"] if _sound(event)]
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"the profiler's trace cannot be read: {error}") from None
    named = {_thread(event) for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    unnamed = {_thread(event): None for event in events if event["ph"] == "X" and _thread(event) not in named}
    names = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "ts": 0, "args": {"name": str(tid)}}
        for pid, tid in unnamed
    ]
    about = {key: value for key, value in trace.items() if key not in _NOT_OURS}
    return about | {"traceEvents": events + names}


def _thread(event: dict[str, Any]) -> tuple[Any, Any]:
    return event.get("pid"), event.get("tid")


def _sound(event: dict[str, Any]) -> bool:
    if event["ph"] != "X":
        return True
    times = (event.get("ts"), event.get("dur"))
    return all(isinstance(time, int | float) and math.isfinite(time) and time >= 0 for time in times)


def packed(trace: dict[str, Any]) -> bytes:
    """The file's content: the same trace gives the same bytes."""
    text = json.dumps(trace, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), mtime=0)
