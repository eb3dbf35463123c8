"""Experiments as Prometheus metrics: read from their files when somebody asks, and nothing kept in process but the place in them.

Labels are few: experiment, arm, seed, gpu; `state` and `reason` have a handful of values each. What is not known is absent. Of
a run that has ended, or has not begun, only its state is told.
"""

import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from assay.config.arm import NAME_PATTERN
from assay.monitoring.files import Moment, seconds_of, stat_of
from assay.monitoring.job import LEAST_SILENCE
from assay.monitoring.state import Gpu, Host, Job, Run, Snapshot
from assay.monitoring.watcher import Watcher
from assay.telemetry.reasons import INVALIDATING

RECENT_SECONDS = 24 * 3600.0
"""An experiment in which nothing has happened for so long is told no more, lest its alerts fire for ever."""
REST_SECONDS = 600.0
"""Between two looks at one of those."""
_BEGINS = ("experiment.yaml", ".lock", "comparison/comparison.json", "report/index.html")
"""One of them changes whenever a workflow begins or ends."""

_MIB = 2**20
_RUN, _CARD = ("experiment", "arm", "seed"), ("experiment", "arm", "seed", "gpu")

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "assay_run_state": ("1 under the state in which a run is, as `assay watch` tells it.", (*_RUN, "state")),
    "assay_run_progress_ratio": ("Share of the training's steps that are done.", _RUN),
    "assay_run_step": ("Steps that are done, over all epochs.", _RUN),
    "assay_run_epoch": ("Epochs that are done.", _RUN),
    "assay_run_loss": ("Training loss of the last logged step; may be NaN.", _RUN),
    "assay_run_accuracy_ratio": ("Training accuracy of the epoch so far.", _RUN),
    "assay_run_validation_loss": ("Of the last epoch.", _RUN),
    "assay_run_validation_accuracy_ratio": ("Of the last epoch.", _RUN),
    "assay_run_samples_per_second": ("Training samples a second since the run began.", _RUN),
    "assay_run_gpu_memory_peak_bytes": ("The most that PyTorch had allocated on the GPU.", _RUN),
    "assay_run_remaining_seconds": ("Until the training is over, at its pace.", _RUN),
    "assay_run_silent_seconds": ("Since its log grew last.", _RUN),
    "assay_profile_block_state": ("1 under the state in which a block is.", ("experiment", "block", "state")),
    "assay_stage_jobs": ("Jobs of a stage in a state.", ("experiment", "stage", "state")),
    "assay_gpu_utilization_ratio": ("Share of time in which some kernel ran.", _CARD),
    "assay_gpu_memory_used_bytes": ("Used by everyone.", _CARD),
    "assay_gpu_memory_total_bytes": ("On the card, or on its MIG instance.", _CARD),
    "assay_gpu_temperature_celsius": ("Of the core.", _CARD),
    "assay_gpu_memory_temperature_celsius": ("Of the memory.", _CARD),
    "assay_gpu_sm_clock_hertz": ("Clock of the multiprocessors.", _CARD),
    "assay_gpu_memory_clock_hertz": ("Clock of the memory.", _CARD),
    "assay_gpu_power_watts": ("As the card's sensor tells it.", _CARD),
    "assay_gpu_power_limit_watts": ("That the card keeps to.", _CARD),
    "assay_gpu_energy_joules_total": ("The card's own counter.", _CARD),
    "assay_gpu_fan_ratio": ("Speed of the fan, of its greatest.", _CARD),
    "assay_gpu_pcie_transmit_bytes_per_second": ("Sent over PCIe.", _CARD),
    "assay_gpu_pcie_receive_bytes_per_second": ("Received over PCIe.", _CARD),
    "assay_gpu_ecc_uncorrected_errors_total": ("Since the driver was loaded.", _CARD),
    "assay_gpu_other_processes": ("Processes of others that compute on it.", _CARD),
    "assay_gpu_samples_total": ("Samples of the run in which the reasons for lower clocks were told.", _CARD),
    "assay_gpu_throttled_samples_total": ("Of them, those with heat or a fault among the reasons.", _CARD),
    "assay_gpu_clock_reason_samples_total": ("Of them, those with this reason.", (*_CARD, "reason")),
    "assay_gpu_lost": ("1 once it has stopped to answer.", _CARD),
    "assay_cpu_load": ("Of the run's machine, over a minute.", _RUN),
    "assay_cpu_clock_hertz": ("Mean over at most eight of the job's CPUs.", _RUN),
    "assay_cpu_temperature_celsius": ("Of the hottest sensor.", _RUN),
    "assay_cpu_throttled_seconds_total": ("For which the job's control group was held back.", _RUN),
    "assay_cpu_steal_seconds_total": ("That the hypervisor gave to other guests, over all CPUs.", _RUN),
    "assay_results_free_bytes": ("That this user may still write where the results are.", ()),
    "assay_results_size_bytes": ("Size of that file system.", ()),
    "assay_exporter_experiments": ("That are told.", ()),
    "assay_exporter_warnings": ("Files of experiments that could not be read.", ()),
    "assay_exporter_read_seconds": ("That reading all of it took.", ()),
}
"""Help and labels by name. Names that end in `_total` are counters."""

_RUN_VALUES: dict[str, Callable[[Run], float | None]] = {
    "assay_run_progress_ratio": lambda run: (
        run.step / run.steps if run.steps and run.step is not None else None
    ),
    "assay_run_step": lambda run: run.step,
    "assay_run_epoch": lambda run: run.epoch,
    "assay_run_loss": lambda run: run.loss,
    "assay_run_accuracy_ratio": lambda run: run.accuracy,
    "assay_run_validation_loss": lambda run: run.validation_loss,
    "assay_run_validation_accuracy_ratio": lambda run: run.validation_accuracy,
    "assay_run_samples_per_second": lambda run: run.throughput,
    "assay_run_gpu_memory_peak_bytes": lambda run: _times(run.gpu_memory_mb, _MIB),
    "assay_run_remaining_seconds": lambda run: run.seconds_left,
    "assay_run_silent_seconds": lambda run: run.silent_s,
}
_GPU_VALUES: dict[str, tuple[str, float]] = {
    "assay_gpu_utilization_ratio": ("utilization_percent", 0.01),
    "assay_gpu_memory_used_bytes": ("memory_used_mb", _MIB),
    "assay_gpu_memory_total_bytes": ("memory_total_mb", _MIB),
    "assay_gpu_temperature_celsius": ("temperature_c", 1),
    "assay_gpu_memory_temperature_celsius": ("memory_temperature_c", 1),
    "assay_gpu_sm_clock_hertz": ("sm_mhz", 1e6),
    "assay_gpu_memory_clock_hertz": ("memory_mhz", 1e6),
    "assay_gpu_power_watts": ("power_w", 1),
    "assay_gpu_power_limit_watts": ("power_limit_w", 1),
    "assay_gpu_energy_joules_total": ("energy_mj", 1e-3),
    "assay_gpu_fan_ratio": ("fan_percent", 0.01),
    "assay_gpu_pcie_transmit_bytes_per_second": ("pcie_tx_mb_s", 1e6),
    "assay_gpu_pcie_receive_bytes_per_second": ("pcie_rx_mb_s", 1e6),
    "assay_gpu_ecc_uncorrected_errors_total": ("ecc_uncorrected", 1),
    "assay_gpu_other_processes": ("other_processes", 1),
}
_CPU_VALUES: dict[str, tuple[str, float]] = {
    "assay_cpu_load": ("load", 1),
    "assay_cpu_clock_hertz": ("cpu_mhz", 1e6),
    "assay_cpu_temperature_celsius": ("temperature_c", 1),
    "assay_cpu_throttled_seconds_total": ("throttled_s", 1),
    "assay_cpu_steal_seconds_total": ("steal_s", 1),
}


class Sheet:
    """Metrics with their samples, each label set once: a scrape with one twice is refused as a whole."""

    def __init__(self) -> None:
        self._families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """What is not known is left out; of two values for the same labels the first stands."""
        if value is None or (name, labels) in self._seen:
            return
        self._seen.add((name, labels))
        if name not in self._families:
            text, label_names = METRICS[name]
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            self._families[name] = family(name, text, labels=label_names)
        printable = [label.encode("utf-8", "replace").decode() for label in labels]
        self._families[name].add_metric(printable, value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class Collector(PrometheusCollector):
    """Looks at all experiments below a folder each time somebody asks.

    least_silence: seconds without a line below which no run counts as stalled or killed.
    """

    def __init__(self, results: Path, least_silence: float = LEAST_SILENCE) -> None:
        self._results, self._least_silence = results, least_silence
        self._watchers: dict[str, Watcher] = {}
        self._resting: dict[str, tuple[float, float]] = {}
        """Experiments that are told no more: when one of `_BEGINS` changed last, and when to look again."""
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            return list(self._read(Moment(time.time(), time.monotonic())))

    def _read(self, moment: Moment) -> Sheet:
        began, sheet = time.monotonic(), Sheet()
        told = warnings = 0
        folders = _experiments(self._results)
        for name in set(self._watchers) - {folder.name for folder in folders}:
            del self._watchers[name]
        for folder in folders:
            if self._rests(folder, moment):
                continue
            try:
                snapshot = self._look(folder, sheet, moment)
            except Exception:  # one experiment's damaged files must not silence the alerts of all others
                self._tell_once(folder, traceback.format_exc())
                warnings += 1
                continue
            if snapshot is not None:
                told += 1
                warnings += len(snapshot.warnings)
        _add_disk(sheet, self._results)
        sheet.add("assay_exporter_experiments", told)
        sheet.add("assay_exporter_warnings", warnings)
        sheet.add("assay_exporter_read_seconds", time.monotonic() - began)
        return sheet

    def _look(self, folder: Path, sheet: Sheet, moment: Moment) -> Snapshot | None:
        """None where nothing has happened for long."""
        watcher = self._watchers.get(folder.name) or Watcher(folder, least_silence=self._least_silence)
        self._watchers[folder.name] = watcher
        snapshot = watcher.look(moment)
        if moment.wall - _last_event(snapshot, folder) > RECENT_SECONDS:
            self._resting[folder.name] = (_begun(folder), moment.monotonic + REST_SECONDS)
            del self._watchers[folder.name]
            return None
        _add_experiment(sheet, watcher, snapshot, moment)
        return snapshot

    def _tell_once(self, folder: Path, what: str) -> None:
        if self._told.get(folder.name) != what:
            self._told[folder.name] = what
            print(f"{folder}: cannot be read\n{what}", file=sys.stderr, flush=True)

    def _rests(self, folder: Path, moment: Moment) -> bool:
        begun, again = self._resting.get(folder.name, (None, 0.0))
        if begun is not None and begun == _begun(folder) and moment.monotonic < again:
            return True
        self._resting.pop(folder.name, None)
        return False


def _experiments(results: Path) -> list[Path]:
    """Folders in which a workflow has begun."""
    try:
        found = sorted(one for one in results.iterdir() if re.fullmatch(NAME_PATTERN, one.name))
    except OSError:
        return []
    return [one for one in found if stat_of(one / "experiment.yaml") or stat_of(one / ".lock")]


def _begun(folder: Path) -> float:
    return max((stat.st_mtime for name in _BEGINS if (stat := stat_of(folder / name))), default=0.0)


def _last_event(snapshot: Snapshot, folder: Path) -> float:
    """Seconds since 1970."""
    noise = snapshot.noise
    jobs: list[Job] = [*snapshot.runs, *snapshot.blocks, *snapshot.traces]
    jobs += [*(noise.runs if noise else ()), *(noise.blocks if noise else ())]
    jobs += [trial for sweep in snapshot.sweeps for trial in sweep.trials]
    told = [*(one.last_event for one in jobs), *(gpu.timestamp for gpu in snapshot.gpus)]
    times = (seconds_of(timestamp) for timestamp in told if timestamp)
    return max((one for one in times if one is not None), default=0.0) or _begun(folder)


def _add_experiment(sheet: Sheet, watcher: Watcher, snapshot: Snapshot, moment: Moment) -> None:
    name = watcher.folder.name
    noise = snapshot.noise
    for run in (*snapshot.runs, *(noise.runs if noise else ())):
        labels = (name, run.arm, str(run.seed))
        sheet.add("assay_run_state", 1, *labels, run.state)
        if run.state in ("running", "stalled") and run.stage == "train":
            for metric, value in _RUN_VALUES.items():
                sheet.add(metric, value(run), *labels)
    for block in snapshot.blocks:
        sheet.add("assay_profile_block_state", 1, name, str(block.block), block.state)
    for block in noise.blocks if noise else ():
        sheet.add("assay_profile_block_state", 1, name, f"noise-{block.block}", block.state)
    _add_stages(sheet, name, snapshot)
    samplers = [
        (samples.gpus(moment, host=host, **user), samples.host(moment, host or ""), user)
        for samples, host, user in watcher.samplers()
    ]
    for cards, machine, user in sorted(samplers, key=_newest_first):
        labels = (name, str(user["arm"]), "" if user["seed"] is None else str(user["seed"]))
        for card in cards:
            _add_gpu(sheet, card, (*labels, card.uuid))
        if machine is not None and machine.live:
            for metric, (value_name, factor) in _CPU_VALUES.items():
                sheet.add(metric, _times(machine.values.get(value_name), factor), *labels)


def _add_stages(sheet: Sheet, name: str, snapshot: Snapshot) -> None:
    """Of trials and traces how many are in which state: labels for each would be too many."""
    jobs = Counter((stage, state) for stage, state in snapshot.stages.items())
    jobs.update(("trace", trace.state) for trace in snapshot.traces)
    jobs.update(("sweep", trial.state) for sweep in snapshot.sweeps for trial in sweep.trials)
    if snapshot.noise is not None:
        jobs["noise", snapshot.noise.floor] += 1
    for (stage, state), count in jobs.items():
        sheet.add("assay_stage_jobs", count, name, stage, state)


def _newest_first(sampler: tuple[list[Gpu], Host | None, Mapping[str, object]]) -> float:
    """Visits of an arm in several blocks have the same labels: the block at work counts."""
    cards, machine, _ = sampler
    told = [card.timestamp for card in cards] + ([machine.timestamp] if machine is not None else [])
    return -max((one for one in map(seconds_of, told) if one is not None), default=0.0)


def _add_gpu(sheet: Sheet, card: Gpu, labels: tuple[str, ...]) -> None:
    if card.live or card.lost:  # the run of a lost card may end before anybody asks
        sheet.add("assay_gpu_lost", float(card.lost is not None), *labels)
    if not card.live:
        return
    for metric, (name, factor) in _GPU_VALUES.items():
        sheet.add(metric, _times(card.values.get(name), factor), *labels)
    if card.samples:
        sheet.add("assay_gpu_samples_total", card.samples, *labels)
        sheet.add("assay_gpu_throttled_samples_total", card.throttled_samples, *labels)
        for reason in dict.fromkeys((*INVALIDATING, *sorted(card.reason_samples))):
            count = card.reason_samples.get(reason, 0)
            sheet.add("assay_gpu_clock_reason_samples_total", count, *labels, reason)


def _add_disk(sheet: Sheet, results: Path) -> None:
    """Of the nearest folder that exists: the first run makes the results' folder."""
    there = next((one for one in (results, *results.absolute().parents) if one.exists()), None)
    try:
        told = None if there is None else os.statvfs(there)
    except OSError:
        told = None
    if told is not None and told.f_blocks:
        sheet.add("assay_results_free_bytes", told.f_bavail * told.f_frsize)
        sheet.add("assay_results_size_bytes", told.f_blocks * told.f_frsize)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
