"""Under what circumstances records came to be: machine, software, and how they were watched.

An undeclared difference between the arms of one seed or block is a violation where it can move a number of one arm
and not of the other; it is noted where it can not, or where that number is left out elsewhere
(docs/statistics.md#the-contract says why, line by line).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.comparison.collect import Evidence
from assay.comparison.model import Variable
from assay.comparison.variables import ABSENT, Getter, everywhere, factor_of, variable, within_pairs
from assay.records import canonical_json


def code_of_stage(record: Evidence) -> str:
    """Each stage records the hash of its own source files."""
    return record.code.sources_sha256


def of_device(field: str) -> Getter:
    def get(record: Evidence) -> str | None:
        value = getattr(record.device, field, None)
        return None if value is None else str(value)

    return get


def image_of(record: Evidence) -> str:
    image = record.environment.image
    return "none (the host's environment)" if image is None else canonical_json(image)


def threads_of(record: Evidence) -> str | None:
    threads = record.environment.threads
    return None if threads is None else str(threads)


def _memory(record: Evidence) -> str | None:
    memory = None if record.device is None else record.device.memory_mb
    return None if memory is None else f"{memory:.0f} MiB"


def _cores(record: Evidence) -> str | None:
    cores = record.environment.cores
    return None if cores is None else str(len(cores))


def _modified(record: Evidence) -> str | None:
    return None if record.code.modified is None else "modified" if record.code.modified else "as committed"


def _resumed(record: Evidence) -> str:
    return "resumed" if record.resumed else "in one go"


@dataclass(frozen=True)
class Line:
    """One variable. `of`: which records are asked, all by default; `factors`: settings whose declared difference is its."""

    name: str
    title: str
    get: Getter
    of: Callable[[Evidence], bool] = lambda record: True
    factors: tuple[str, ...] = ()
    harmless: bool = False
    per_stage: bool = False
    own: bool = False
    """Whether each seed or block has a value of its own, as intended."""
    show: Callable[[dict[str, list[str]]], dict[str, list[str]]] | None = None
    visits: bool = False
    """Whether it is of a profile's visits alone."""
    device: Literal["cpu", "cuda"] | None = None
    """The type of device that has it; None: any."""

    def applies(self, evidence: Sequence[Evidence], *, profiled: bool) -> bool:
        """Whether there is anything here that has it, as far as records tell."""
        if self.visits and not profiled:
            return False
        devices = [one.device for one in evidence if not self.visits or _visit(one)]
        elsewhere = [device is not None and device.type != self.device for device in devices]
        return self.device is None or not elsewhere or not all(elsewhere)


def _visit(record: Evidence) -> bool:
    return record.stage == "profile"


def _run(record: Evidence) -> bool:
    return record.stage != "profile"


def _trained(record: Evidence) -> bool:
    return record.stage == "train" and record.completed


def _judged(record: Evidence) -> bool:
    return record.stage == "profile" and (record.completed or record.outcome == "invalid")


def _watched(record: Evidence) -> bool:
    return record.stage in ("train", "profile") and record.completed


def _on_cpu(record: Evidence) -> bool:
    return record.device is None or record.device.type == "cpu"


def _on_gpu(record: Evidence) -> bool:
    return not _on_cpu(record)


def _packages(by_arm: dict[str, list[str]]) -> dict[str, list[str]]:
    """Only the packages whose versions differ."""
    parsed = {arm: [json.loads(text) for text in texts] for arm, texts in by_arm.items()}
    everything = [packages for found in parsed.values() for packages in found]
    names = sorted(
        name
        for name in set().union(*everything)
        if len({packages.get(name, ABSENT) for packages in everything}) > 1
    )
    return {
        arm: [", ".join(f"{name} {packages.get(name, ABSENT)}" for name in names) for packages in found]
        for arm, found in parsed.items()
    }


_DEVICE = ("execution.device",)
_LINES = (
    Line("packages", "the set of packages", lambda r: r.packages, show=_packages),
    Line("python", "Python", lambda r: r.environment.python),
    Line("image", "the container image", image_of),
    Line("code", "Assay's code", code_of_stage, per_stage=True),
    Line("code.version", "Assay's version", lambda r: r.code.version, harmless=True),
    Line("device.type", "the device", of_device("type"), factors=_DEVICE),
    Line("device.name", "the device model", of_device("name"), factors=_DEVICE),
    Line("device.memory", "the device's memory", _memory, of=_on_gpu, factors=_DEVICE, device="cuda"),
    Line("device.driver", "the driver", of_device("driver"), factors=_DEVICE, device="cuda"),
    Line("device.cuda", "CUDA", of_device("cuda"), factors=_DEVICE, device="cuda"),
    Line("device.uuid", "the profiled device", of_device("uuid"), of=_visit, factors=_DEVICE,
         visits=True, device="cuda"),
    Line("device.uuid.runs", "the GPU of training and evaluation", of_device("uuid"),
         of=lambda r: _run(r) and _on_gpu(r), factors=_DEVICE, harmless=True, device="cuda"),
    Line("devices", "the number of devices of a training", lambda r: r.devices, of=_trained,
         factors=("execution.devices", "execution.nodes", *_DEVICE)),
    Line("cpu", "the CPU model", lambda r: r.environment.cpu, of=_on_cpu, factors=_DEVICE, device="cpu"),
    Line("cpu.host", "the CPU model beside the GPU", lambda r: r.environment.cpu, of=_on_gpu, harmless=True,
         device="cuda"),
    Line("cores", "the number of cores of a job's own", _cores, harmless=True),
    Line("threads", "CPU threads", threads_of, factors=("execution.threads",)),
    Line("host", "the host", lambda r: r.environment.host, harmless=True),
    Line("host.profile", "the host of a profile block", lambda r: r.environment.host, of=_visit, visits=True),
    Line("platform", "the platform", lambda r: r.environment.platform, harmless=True),
    Line("code.commit", "the commit", lambda r: r.code.commit, harmless=True),
    Line("code.modified", "whether the code is as committed", _modified, harmless=True),
    Line("training.resumed", "whether a training was resumed", _resumed, of=_trained, harmless=True),
    Line("telemetry.training", "how a training was watched", lambda r: r.watched, of=_trained, harmless=True),
    Line("telemetry.profile", "how a profile was watched", lambda r: r.watched, of=lambda r: _visit(r) and r.completed,
         visits=True),
    Line("telemetry.gaps", "the completeness of telemetry", lambda r: r.gaps, of=_watched, harmless=True),
    Line("blocks.order", "the order of visits in a block", lambda r: r.order, of=_judged, own=True, visits=True),
    Line("blocks.gates", "what a block was judged by", lambda r: r.gates, of=_judged, own=True, visits=True),
)  # fmt: skip


def circumstances(evidence: list[Evidence], declared: Mapping[str, str], *, profiled: bool) -> list[Variable]:
    """All of them; `declared`: paths at which arms differ as declared, each with its factor. profiled: whether it was asked for."""
    lines = []
    for line in _LINES:
        if not line.applies(evidence, profiled=profiled):
            lines.append(variable(line.name, "inapplicable", 0, {}))
            continue
        factor = next(filter(None, (factor_of(path, declared) for path in line.factors)), None)
        lines.append(
            within_pairs(
                line.name,
                line.title,
                [record for record in evidence if line.of(record)],
                line.get,
                factor=factor,
                harmless=line.harmless,
                per_stage=line.per_stage,
                own=line.own,
                show=line.show,
            )
        )
    if not profiled:
        return [
            *lines,
            *(variable(name, "inapplicable", 0, {}) for name in ("blocks.settings", "blocks.validity")),
        ]
    visits = [record for record in evidence if _judged(record)]
    settings = everywhere(
        "blocks.settings", "the settings of a profile", visits, lambda r: r.measured_by or None
    )
    return [*lines, settings, _validity(visits)]


def _validity(visits: Sequence[Evidence]) -> Variable:
    """Whether blocks that count were valid, and what became of the others."""
    shown: dict[str, list[str]] = {}
    for arm in dict.fromkeys(record.arm for record in visits):
        own = [record for record in visits if record.arm == arm]
        bad = sum(not record.completed for record in own)
        shown[arm] = [f"{len(own) - bad} of {len(own)} valid"]
    for record in visits:
        if record.completed and record.tripped:
            message = f"{record.path} counts as valid, and its gate tripped: {record.tripped}"
            return variable("blocks.validity", "violated", len(visits), shown, message)
    if not visits:
        return variable("blocks.validity", "unknown", 0, shown)
    invalid = sorted({record.replicate for record in visits if not record.completed})
    if invalid:
        listed = ", ".join(map(str, invalid))
        message = f"validity of blocks: {listed} left out for all arms, because a gate tripped"
        return variable("blocks.validity", "varies", len(visits), shown, message)
    unjudged = [record for record in visits if record.gates is None]
    if unjudged:
        message = f"validity of blocks: {unjudged[0].path} was judged by no gate, for want of telemetry"
        return variable("blocks.validity", "unknown", len(visits) - len(unjudged), shown, message)
    return variable("blocks.validity", "equal", len(visits), shown)
