"""Numbers and verdicts as a person reads them."""

import math
from collections.abc import Sequence

from assay.comparison.model import Contrast, Floor, MetricResult, Rank, Sensitivity, SharedExamples

PHRASES: dict[str, tuple[str, str]] = {
    "accuracy": ("recognises better than", "recognises worse than"),
    "top5_accuracy": (
        "recognises better among its first five than",
        "recognises worse among its first five than",
    ),
    "loss": ("has a higher loss than", "has a lower loss than"),
    "macro_f1": (
        "recognises the classes better on average than",
        "recognises the classes worse on average than",
    ),
    "calibration_error": ("is worse calibrated than", "is better calibrated than"),
    "target_reached": ("reaches the target more often than", "reaches the target less often than"),
    "train_seconds_to_target": (
        "takes longer to reach the target than",
        "reaches the target sooner than",
    ),
    "train_energy_to_target": (
        "takes more energy to reach the target than",
        "reaches the target with less energy than",
    ),
    "latency_ms": ("answers more slowly than", "answers faster than"),
    "throughput": ("handles more samples a second than", "handles fewer samples a second than"),
    "training_throughput": ("trains faster than", "trains more slowly than"),
    "loaded_training_throughput": (
        "trains faster, its data loaded, than",
        "trains more slowly, its data loaded, than",
    ),
    "largest_batch_throughput": (
        "handles more samples a second at its largest batch than",
        "handles fewer samples a second at its largest batch than",
    ),
    "cold_start_s": ("takes longer to its first prediction than", "is sooner at its first prediction than"),
    "model_size_mb": ("is larger than", "is smaller than"),
    "peak_memory_mb": ("needs more memory than", "needs less memory than"),
    "parameters": ("has more parameters than", "has fewer parameters than"),
    "flops": ("needs more FLOPs than", "needs fewer FLOPs than"),
}
"""What it means that an arm's value is higher, and lower, than the baseline's."""

REPLICATES = {"seed": ("seed", "seeds"), "block": ("block", "blocks"), "exact": ("record", "records")}
_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def plural(count: int, pairing: str) -> str:
    one, many = REPLICATES[pairing]
    return f"{count} {one if count == 1 else many}"


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def value_text(value: float, unit: str, decimals: int | None = None) -> str:
    """A level of a metric with its unit: fractions as percent."""
    if unit == "fraction":
        return f"{100 * value:.{2 if decimals is None else decimals}f}%"
    if unit == "nats" and decimals is not None:
        return f"{value:.{decimals}f} nats"
    if unit == "count":
        return _amount(value)
    if unit == "FLOP":
        return f"{_amount(value)} FLOP"
    return f"{_significant(value)} {unit}".rstrip()


def change_texts(metric: MetricResult, numbers: Sequence[float]) -> list[str]:
    """Differences or ratios side by side, alike in unit and decimals; the first is the estimate."""
    if metric.scale == "ratio":
        return _ratio_texts(numbers)
    factor = 100 if metric.unit == "fraction" else 1
    decimals = decimals_for(metric, numbers)
    return [_signed(factor * number, decimals) for number in numbers]


def decimals_for(metric: MetricResult, numbers: Sequence[float]) -> int:
    """Decimals that show two digits of the smallest width or size among these differences."""
    factor = 100 if metric.unit == "fraction" else 1
    sizes = [abs(number) * factor for number in numbers if number]
    if not sizes:
        return 1 if metric.unit == "fraction" else 3
    return min(6, max(1, 1 - math.floor(math.log10(max(sizes)))))


def unit_of_change(metric: MetricResult) -> str:
    if metric.scale == "ratio":
        return ""
    return " percentage points" if metric.unit == "fraction" else f" {metric.unit}".rstrip()


def margin_text(metric: MetricResult) -> str:
    assert metric.margin is not None
    if metric.scale == "ratio":
        return f"{100 * metric.margin:.3g}%"
    factor = 100 if metric.unit == "fraction" else 1
    return f"{factor * metric.margin:.3g}{unit_of_change(metric)}"


def change_text(scale: str, unit: str, change: float) -> str:
    """One difference or ratio with its unit, two significant digits."""
    if scale == "ratio":
        return _ratio_texts([change])[0]
    size = floor_text(scale, unit, abs(change))
    return size if change == 0 else f"{'+' if change > 0 else _MINUS}{size}"


def floor_text(scale: str, unit: str, value: float) -> str:
    """The size of a noise floor, without a sign."""
    if scale == "ratio":
        return f"{100 * value:.2g}%" if value < 1 else f"{_TIMES}{1 + value:.3g}"
    if unit == "fraction":
        return f"{100 * value:.2g} percentage points"
    return f"{value:.2g} {unit}".rstrip()


def within_floor(metric: MetricResult, floor: Floor) -> str:
    """Why a difference that the test finds is not claimed."""
    if floor.value is None:
        return f"the experiment asks for a noise floor and there is none: {floor.reason}"
    size = floor_text(metric.scale, metric.unit, floor.value)
    pairs = plural(floor.pairs, metric.pairing)
    return f"the difference is within the noise floor, {size}: {floor.arm} may differ from itself by as much ({pairs})"


def sensitivity_text(metric: MetricResult, contrast: Contrast, found: Sensitivity) -> str:
    """What a claim would be at the extremes of what is missing."""
    texts = change_texts(metric, [found.worst_estimate, found.best_estimate])
    words = {"inconclusive": "undecided"}
    worst, best = (words.get(word, word) for word in (found.worst, found.best))
    missing = "the missing pair" if found.missing == 1 else f"the {found.missing} missing pairs"
    unit = unit_of_change(metric)
    if worst == best:
        between = f"{texts[0]} to {texts[1]}{unit}"
        return f"whatever {missing} had come to, the test would find {contrast.arm} {worst} ({between})"
    return (
        f"had {missing} come to the worst for {contrast.arm}, the test would find it {worst} ({texts[0]}{unit}); to the "
        f"best, {best} ({texts[1]}{unit})"
    )


def posterior_sentence(metric: MetricResult, contrast: Contrast) -> str:
    """What to believe after the differences; empty where there is no posterior."""
    found = contrast.posterior
    if found is None or found.better is None:
        return ""
    text = (
        f"{contrast.arm} is better than {contrast.baseline} with probability {probability_text(found.better)}"
    )
    if found.within_margin is not None and found.better_beyond_margin is not None:
        text += (
            f", by more than {margin_text(metric)} with {probability_text(found.better_beyond_margin)}; "
            f"the two are within it with {probability_text(found.within_margin)}"
        )
    return f"Bayesian estimation, {metric.title}: {text}."


def probability_text(probability: float) -> str:
    """Never certainty."""
    if 0.001 <= probability <= 0.999:
        return f"{100 * probability:.1f}%"
    return "< 0.1%" if probability < 0.5 else "> 99.9%"


_NAMED_RANKS = 6


def ranking_sentence(metric: MetricResult) -> str:
    """All arms, best first, each with the ranks that are not ruled out."""
    assert metric.ranking is not None
    ordered = sorted(metric.ranking.arms.items(), key=lambda one: (one[1].rank, one[1].low, one[1].high))
    texts = [f"{arm} {ranks_text(found)}" for arm, found in ordered[:_NAMED_RANKS]]
    if len(ordered) > _NAMED_RANKS:
        texts.append(f"and {len(ordered) - _NAMED_RANKS} more")
    level = f"{100 * metric.ranking.confidence:g}% sure of all at once"
    return f"Ranks in {metric.title}, {level}: {', '.join(texts)}."


def ranks_text(found: Rank) -> str:
    return f"{found.low}" if found.low == found.high else f"{found.low} to {found.high}"


def shared_sentence(metric: MetricResult, contrast: Contrast, shared: SharedExamples) -> str:
    """How sure the difference is where test examples are new too, and which of the two it depends on more."""
    if shared.reason is not None or shared.variances is None or shared.new_both is None:
        return ""
    ends, estimate = shared.new_both.interval, contrast.estimate
    if estimate is None or ends.low is None or ends.high is None:
        return ""
    texts = change_texts(metric, [estimate, ends.low, ends.high])
    variances = shared.variances
    parts = {
        "seeds": variances.seeds / shared.seeds,
        "test examples": variances.examples / shared.examples,
        "both together": variances.interaction / (shared.seeds * shared.examples),
    }
    total = sum(parts.values())
    shares = ", ".join(f"{name} {100 * part / total:.0f}%" for name, part in parts.items())
    none = ends.low <= 0 <= ends.high
    if contrast.verdict in ("better", "worse") and none:
        tail = "; so the verdict holds on these test examples, and need not on others"
    else:
        tail = ", which does not exclude that there is none" if none else ""
    return (
        f"For other seeds and other test examples the difference is {texts[0]}{unit_of_change(metric)} "
        f"({100 * ends.confidence:g}% interval {texts[1]} to {texts[2]}{tail}). "
        f"Variance of this mean, {plural(shared.seeds, 'seed')} on {shared.examples:,} examples: {shares}."
    )


def sentence(metric: MetricResult, contrast: Contrast, *, own_direction: bool, alpha: float) -> str:
    """The verdict in words: what, by how much, how sure, and what it would take to know."""
    numbers = _numbers(metric, contrast)
    return (
        _claim(metric, contrast, own_direction=own_direction)
        + (f": {numbers}." if numbers else ".")
        + _rest(metric, contrast, alpha)
    )


def _claim(metric: MetricResult, contrast: Contrast, *, own_direction: bool) -> str:
    arm, baseline = contrast.arm, contrast.baseline
    if contrast.verdict == "inconclusive":
        return f"It is undecided how {arm} and {baseline} differ in {metric.title}"
    if contrast.verdict == "equivalent":
        if metric.pairing == "exact" and contrast.estimate == 1:
            return f"{arm} and {baseline} are equal in {metric.title}"
        return f"{arm} and {baseline} are equivalent in {metric.title}"
    return f"{arm} {_comparative(metric, contrast, own_direction=own_direction)} {baseline}"


def _comparative(metric: MetricResult, contrast: Contrast, *, own_direction: bool) -> str:
    if not own_direction or metric.name not in PHRASES:
        return f"is {contrast.verdict} in {metric.title} than"
    assert contrast.estimate is not None
    higher = contrast.estimate > (1 if metric.scale == "ratio" else 0)
    return PHRASES[metric.name][0 if higher else 1]


def _numbers(metric: MetricResult, contrast: Contrast) -> str:
    arm, baseline = metric.arms[contrast.arm].centre, metric.arms[contrast.baseline].centre
    if contrast.estimate is None or arm is None or baseline is None:
        return ""
    interval = contrast.interval
    ends = [interval.low, interval.high] if interval and interval.low is not None else []
    changes = [contrast.estimate, *(end for end in ends if end is not None)]
    texts = change_texts(metric, changes)
    decimals = decimals_for(metric, changes) if metric.scale == "difference" else None
    levels = f"{value_text(arm, metric.unit, decimals)} against {value_text(baseline, metric.unit, decimals)}"
    change = f"{texts[0]}{unit_of_change(metric)}"
    if metric.pairing == "exact":
        return f"{metric.title} {levels}, {change}, counted exactly"
    details = []
    if ends and interval is not None:
        details.append(f"{100 * interval.confidence:g}% interval {texts[1]} to {texts[2]}")
    elif contrast.pairs >= 3:
        details.append(f"the same at every {REPLICATES[metric.pairing][0]}")
    if contrast.test is not None:
        details.append(_test_text(metric, contrast))
    return f"{metric.title} {levels}, {change} ({'; '.join(details)})"


def _test_text(metric: MetricResult, contrast: Contrast) -> str:
    assert contrast.test is not None
    text = f"{p_text(contrast.test.p)} from {plural(contrast.pairs, metric.pairing)}"
    if contrast.test.p_adjusted > contrast.test.p:
        text += f", adjusted {p_text(contrast.test.p_adjusted).removeprefix('p ').removeprefix('= ')}"
    return text


def _rest(metric: MetricResult, contrast: Contrast, alpha: float) -> str:
    parts = []
    if contrast.within_margin:
        assert metric.margin is not None
        margin = margin_text(metric)
        if metric.pairing == "exact":
            if contrast.estimate != 1:
                parts.append(f"The difference is below the margin that matters, {margin}.")
        else:
            assert contrast.equivalence is not None
            shown = p_text(contrast.equivalence.p_adjusted)
            if contrast.significant:
                parts.append(
                    f"There is a difference, but by less than the margin that matters, {margin} ({shown})."
                )
            else:
                parts.append(
                    f"A difference as large as the margin that matters, {margin}, is ruled out ({shown})."
                )
    parts += [_capital(reason) + "." for reason in contrast.reasons]
    if contrast.verdict == "inconclusive" and (needed := contrast.needed) is not None:
        goal = "show a difference of this size" if needed.towards == "difference" else "show equivalence"
        unit = REPLICATES[metric.pairing][0 if needed.pairs == 1 else 1]
        parts.append(
            f"To {goal} takes about {needed.pairs} {unit} in all, {needed.further} more "
            f"(power {100 * needed.power:g}% at level {alpha:.3g})."
        )
    return "".join(f" {part}" for part in parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _signed(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else _MINUS) + text


def _ratio_texts(ratios: Sequence[float]) -> list[str]:
    """Percent near one, otherwise times."""
    if all(0.5 <= ratio < 2 for ratio in ratios):
        sizes = [abs(100 * (ratio - 1)) for ratio in ratios if ratio != 1]
        decimals = min(4, max(1, 1 - math.floor(math.log10(max(sizes))))) if sizes else 1
        return [f"{_signed(100 * (ratio - 1), decimals)}%" for ratio in ratios]
    return [f"{_TIMES}{_significant(ratio)}" for ratio in ratios]


def _significant(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def _amount(value: float) -> str:
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:,.0f}"
