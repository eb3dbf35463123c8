"""Numbers as a person reads them: digits that the uncertainty supports, units, true minus signs."""

import math
from collections.abc import Iterable

from assay.comparison.model import ArmSummary, Contrast, MetricResult
from assay.comparison.wording import change_texts

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimals_for(value: float, half_width: float | None, *, most: int = 4) -> int:
    """Decimals so that the half width of the interval has two significant digits; else the value three."""
    scale, digits = (half_width, 2) if half_width else (abs(value), 3)
    if not scale or not math.isfinite(scale):
        return min(2, most)
    return max(0, min(most, digits - 1 - math.floor(math.log10(scale))))


def plain(value: float, decimals: int, *, sign: bool = False) -> str:
    """Fixed decimals with thousands separators; no minus before a zero."""
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits, never an exponent between a millionth and a billion."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-6 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    rounded = float(f"{value:.{digits - 1}e}")
    return plain(rounded, max(0, digits - 1 - math.floor(math.log10(abs(rounded)))))


def heading(metric: MetricResult) -> str:
    return metric.title[:1].upper() + metric.title[1:]


def quantity(value: float | None, unit: str) -> str:
    """One value with its unit, three or four significant digits."""
    if value is None:
        return NOTHING
    if unit == "fraction":
        return f"{plain(100 * value, 2)}%"
    if unit == "count":
        return f"{value:,.0f}" if value < 1e6 else f"{significant(value / 1e6)} M"
    if unit == "FLOP":
        for factor, prefix in _PREFIXES:
            if value >= factor:
                return f"{significant(value / factor)} {prefix}FLOP"
        return f"{value:,.0f} FLOP"
    if unit == "s" and value >= 120:
        return f"{significant(value / 60)} min" if value < 7200 else f"{significant(value / 3600)} h"
    return f"{significant(value)} {unit}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_statement(p: float, name: str = "p") -> str:
    text = p_value(p)
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


def summary(metric: MetricResult, arm: ArmSummary) -> tuple[str, str]:
    """Centre with unit, and its interval in the same unit (empty where there is none)."""
    if arm.centre is None:
        return NOTHING, ""
    low, high = _ends(arm.interval)
    if low is None or high is None:
        return quantity(arm.centre, metric.unit), ""
    if metric.unit in {"count", "FLOP"}:
        return quantity(arm.centre, metric.unit), ""
    factor, suffix = (100.0, "%") if metric.unit == "fraction" else (1.0, f" {metric.unit}")
    decimals = decimals_for(factor * arm.centre, factor * (high - low) / 2, most=2 if factor == 100 else 4)
    centre, ends = (
        plain(factor * arm.centre, decimals),
        (plain(factor * end, decimals) for end in (low, high)),
    )
    return centre + suffix, interval(*ends)


def level(metric: MetricResult, arm: ArmSummary) -> str:
    """Centre and interval, and over how many of its replicates where some have no value: `98.00% (5 of 6) [97.43, 98.62]`."""
    centre, ends = summary(metric, arm)
    return " ".join(filter(None, (centre + of_those(arm), ends)))


def of_those(arm: ArmSummary) -> str:
    """What an arm's centre is over, where that is not all of its seeds or blocks."""
    missing = arm.centre is not None and arm.n < len(arm.values)
    return f" ({arm.n:,} of {len(arm.values):,})" if missing else ""


def contrast(metric: MetricResult, found: Contrast) -> tuple[str, str]:
    """Estimate and its interval as the verdict's sentence writes them: points, percent or times."""
    if found.estimate is None:
        return NOTHING, ""
    ends = [end for end in _ends(found.interval) if end is not None]
    texts = change_texts(metric, [found.estimate, *ends])
    unit = "" if metric.scale == "ratio" else " pp" if metric.unit == "fraction" else f" {metric.unit}"
    return f"{texts[0]}{unit}", interval(*texts[1:]) if len(ends) == 2 else ""


def ratio(value: float) -> str:
    """Percent near one, otherwise times: `+48.5%`, `×4.54`."""
    if not 0.5 <= value < 2:
        return f"\N{MULTIPLICATION SIGN}{significant(value)}"
    return f"{plain(100 * (value - 1), 1, sign=True)}%"


def interval(low: str, high: str) -> str:
    return f"[{low}, {high}]"


def _ends(found: object) -> tuple[float | None, float | None]:
    return getattr(found, "low", None), getattr(found, "high", None)


def span(values: Iterable[int]) -> str:
    """`0–5, 8` for 0 1 2 3 4 5 8."""
    parts: list[list[int]] = []
    for value in sorted(set(values)):
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}\N{EN DASH}{high}" for low, high in parts)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
