"""The table of telemetry: what the machine did beside every training and every block of the profile."""

from collections.abc import Iterator

from assay.records import Telemetry
from assay.reporting.numbers import NOTHING, plain, quantity
from assay.reporting.read import Results
from assay.reporting.table import Column, Raw, Table
from assay.telemetry.reasons import INVALIDATING

_COLUMNS = (
    ("GPU", ""),
    ("In use", "%"),
    ("SM clock", "MHz"),
    ("Power", "W"),
    ("Hottest", "°C"),
    ("Throttled", "share"),
    ("Energy", "J"),
    ("Load", ""),
    ("CPU clock", "MHz"),
    ("Hottest CPU", "°C"),
    ("Held back", "s"),
    ("Waited for a CPU", "s"),
)


def telemetry(results: Results) -> Table:
    """One row for each GPU of a run or block, or for its CPU where no GPU computed; the worst first."""
    columns = [Column("Arm"), Column("Of"), Column("For", "number"), Column("GPU", "code")]
    columns += [Column(title, "number") for title, _ in _COLUMNS[1:]]
    found = [
        (run.arm, f"seed {run.seed}", values)
        for run in results.runs
        if run.telemetry is not None
        for values in _values(run.telemetry)
    ]
    found += [
        (visit.arm, f"block {visit.block}, visit {number}", values)
        for visit in results.visits
        for number, told in enumerate(visit.telemetry, start=1)
        for values in _values(told)
    ]
    found.sort(key=lambda line: -float(line[2]["throttled_share"] or 0))
    rows = [[arm, of, *_texts(values)] for arm, of, values in found]
    data: list[dict[str, Raw]] = [{"arm": arm, "of": of, **values} for arm, of, values in found]
    return Table("telemetry", "What the machine did", columns, rows, data)


def _values(told: Telemetry) -> Iterator[dict[str, Raw]]:
    """What was not measured is null."""
    cpu = {
        "load": _part(told, "load", "median"),
        "cpu_mhz": _part(told, "cpu_mhz", "median"),
        "cpu_temperature_c": _part(told, "temperature_c", "maximum"),
        "held_back_s": _part(told, "throttled_s", "maximum"),
        "waited_s": _part(told, "waited_s", "maximum"),
    }
    seconds: dict[str, Raw] = {"seconds": told.seconds}
    if not told.gpus:
        empty = (
            "gpu",
            "utilization_percent",
            "sm_mhz",
            "power_w",
            "temperature_c",
            "throttled_share",
            "energy_j",
        )
        yield seconds | dict.fromkeys(empty) | cpu
    for gpu in told.gpus:
        watched = bool(gpu.series)
        series = {
            name: None if (one := gpu.series.get(name)) is None else one.median
            for name in ("utilization_percent", "sm_mhz", "power_w")
        }
        hottest = gpu.series.get("temperature_c")
        share = max((gpu.clock_reasons.get(reason, 0.0) for reason in INVALIDATING), default=0.0)
        yield {
            **seconds,
            "gpu": gpu.uuid,
            **series,
            "temperature_c": None if hottest is None else hottest.maximum,
            "throttled_share": share if watched else None,
            "energy_j": None if gpu.energy is None else gpu.energy.joules,
            **cpu,
        }


def _part(told: Telemetry, name: str, part: str) -> float | None:
    found = told.cpu.get(name)
    return None if found is None else float(getattr(found, part))


def _texts(values: dict[str, Raw]) -> list[str]:
    seconds, gpu, *rest = values.values()
    assert isinstance(seconds, float)
    texts = []
    for (_, unit), value in zip(_COLUMNS[1:], rest, strict=True):
        number = value if isinstance(value, int | float) else None
        if number is not None and unit in ("share", "%"):
            texts.append(f"{plain((100 if unit == 'share' else 1) * number, 1)}%")
        else:
            texts.append(NOTHING if number is None else quantity(number, unit).strip())
    return [quantity(seconds, "s"), "" if gpu is None else f"{str(gpu)[:12]}…", *texts]
