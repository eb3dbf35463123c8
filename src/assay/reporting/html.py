"""The page: one file, readable without network and without JavaScript."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.comparison.floor_wording import measured_text
from assay.comparison.model import Contrast, MetricResult, Posterior
from assay.reporting import belief, methods, numbers
from assay.reporting.examples import disagreements
from assay.reporting.read import Results
from assay.reporting.shared import shared_note
from assay.reporting.statements import text_of
from assay.reporting.style import COLOURS, THEME_VARIABLES
from assay.reporting.sweep import sweep_note
from assay.reporting.table import Table

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_ROWS = 100
"""Rows of a table on the page; its CSV has all."""
MAX_CONTRASTS = 3
"""Arms told in full, best first; the table has all."""
_RANK = {"better": 0, "equivalent": 1, "inconclusive": 2, "worse": 3}


STORY = {
    "sure": ("forest", "differences", "paired-slopes"),
    "costs": ("accuracy-against-latency", "accuracy-against-energy", "latency"),
    "learnt": ("validation-accuracy", "training-loss", "reliability", "per-class"),
    "tuning": ("tuning-budget",),
}
"""Sections of the page and their figures; others have a section of their own."""


@dataclass(frozen=True)
class Image:
    name: str
    title: str
    caption: str
    svg: str


def environment() -> "Environment":
    """Of the pages' templates: what is put into them is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("assay.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(results: Results, tables: Sequence[Table], images: Sequence[Image]) -> str:
    """The whole page as text. Everything that a user wrote is escaped."""
    from markupsafe import Markup

    metric = results.headline_metric
    contrasts = [] if metric is None else sorted(metric.contrasts, key=partial(_rank, metric))
    names = [image.name for image in images if not image.name.startswith("telemetry-")]
    placed = {name for part in STORY.values() for name in part}
    template = environment().get_template("report.html.j2")
    return template.render(
        story={**STORY, "other": [name for name in names if name not in placed]},
        methods=text_of(methods.methods(results)),
        limitations=text_of(methods.limitations(results)),
        reasons=belief.reasons(results),
        assumptions=belief.assumptions(results),
        disagreements=disagreements(results),
        comparison=results.comparison,
        experiment=results.experiment,
        claim=headline(results),
        answers=[answer(results, metric, line) for line in contrasts[:MAX_CONTRASTS] if metric is not None],
        unanswered=max(0, len(contrasts) - MAX_CONTRASTS),
        others=[
            (other.title, line)
            for other in results.metrics[1:]
            for line in other.contrasts
            if len(other.contrasts) <= MAX_CONTRASTS
        ],
        image_note=belief.image_note(results),
        noise_note=noise_note(results),
        posterior_priors=Posterior().priors,
        shared_note=shared_note(results),
        outcome_note=belief.outcome_note(results),
        sweep_note=sweep_note(results),
        unfinished=unfinished(results)[:MAX_ROWS],
        warnings=results.comparison.warnings,
        contract=results.contract,
        narrow_note=f" {methods.NARROW}" if methods.too_narrow(results) else "",
        contract_note=belief.contract_note(results),
        tables={table.name: table for table in tables},
        images={image.name: image for image in images},
        svg={image.name: Markup(image.svg) for image in images},
        max_rows=MAX_ROWS,
        colours=len(COLOURS),
        last_finished=results.surroundings.last_finished[:19].replace("T", " "),
        versions=", ".join(sorted(results.surroundings.facts.get("Assay", ()))),
        seeds=numbers.span(results.experiment.seeds),
    )


def headline(results: Results) -> tuple[str, str]:
    """What is claimed, and the numbers behind it where they do not stand with each arm."""
    metric, whole = results.headline_metric, results.comparison.headline
    if not results.comparison.valid or metric is None:
        return split_claim(whole)
    if len(metric.contrasts) == 1:
        return split_claim(whole)
    if len(metric.contrasts) <= MAX_CONTRASTS:
        return " ".join(split_claim(line.sentence)[0] for line in metric.contrasts), ""
    return whole, ""


def split_claim(sentence: str) -> tuple[str, str]:
    """Claim and numbers of a sentence `claim: numbers.`; all of it is the claim where it has no numbers."""
    claim, colon, rest = sentence.partition(": ")
    if not colon:
        return sentence, ""
    return f"{claim}.", rest[:1].upper() + rest[1:]


def _rank(metric: MetricResult, line: Contrast) -> tuple[int, float]:
    """Best first: by verdict, then by estimate."""
    estimate = 0.0 if line.estimate is None else line.estimate
    return _RANK[line.verdict], -estimate if metric.direction == "higher" else estimate


def answer(results: Results, metric: MetricResult, line: Contrast) -> dict[str, Any]:
    """How much, how sure and at what cost, of one arm on the headline metric."""
    estimate, ends = numbers.contrast(metric, line)
    found = [metric.arms[arm] for arm in (line.baseline, line.arm)]
    levels = [numbers.summary(metric, one)[0] + numbers.of_those(one) for one in found]
    level = f"{100 * results.comparison.confidence:g}%"
    return {
        "arm": line.arm,
        "baseline": line.baseline,
        "verdict": line.verdict,
        "much": estimate.replace(" pp", " points"),
        "much_note": f"{metric.title}: {levels[0]} → {levels[1]}" if line.differences else "",
        "interval": f"{level} interval {ends}" if ends else "",
        "sure": _sure(metric, line),
        "sure_note": _sure_note(line),
        "costs": _costs(results, line.arm),
        "why": line.sentence if len(metric.contrasts) > 1 else _why(line),
    }


def _why(line: Contrast) -> str:
    """What kept it from being conclusive, and what it would take."""
    text = "; ".join(line.reasons)
    if line.needed is not None:
        more = numbers.counted(line.needed.further, "more pair")
        text += f"{'. ' if text else ''}About {more} would be needed, were the difference as seen here."
    return text[:1].upper() + text[1:]


def _sure(metric: MetricResult, line: Contrast) -> str:
    """In how many pairs the arm is better: what a person can check by counting."""
    if not line.differences:
        return "not compared"
    sign = 1 if metric.direction == "higher" else -1
    better = sum(sign * value > 0 for value in line.differences.values())
    word = "block" if metric.pairing == "block" else "seed"
    return f"better on {better} of {numbers.counted(len(line.differences), word)}"


def _sure_note(line: Contrast) -> str:
    parts = []
    if line.test is not None:
        parts.append(numbers.p_statement(line.test.p_adjusted, "adjusted p"))
    if line.effect_size is not None and line.effect_size.value is not None:
        parts.append(f"effect size {numbers.plain(line.effect_size.value, 1, sign=True)}")
    if line.equivalence is not None and line.equivalence.shown:
        parts.append(numbers.p_statement(line.equivalence.p_adjusted, "equivalence p"))
    return ", ".join(parts)


_COSTS = ("latency_ms", "peak_memory_mb", "training_throughput", "parameters", "flops")


def _costs(results: Results, arm: str) -> list[tuple[str, str]]:
    """Changes of what it costs to run against the baseline, both levels, and whether that is undecided; four lines at most."""
    from assay.config.metrics import METRICS
    from assay.reporting.samples import geometric_mean

    undecided = {
        metric.name
        for metric in results.comparison.metrics
        for line in metric.contrasts
        if line.arm == arm and line.verdict == "inconclusive"
    }
    lines = []
    for name in _COSTS:
        ours, theirs = (geometric_mean(results, which, name) for which in (arm, results.comparison.baseline))
        if ours is not None and theirs is not None:
            title, unit = METRICS[name].title.split(",")[0], METRICS[name].unit
            levels = (
                f"{numbers.quantity(theirs, unit).removesuffix(f' {unit}')} → {numbers.quantity(ours, unit)}"
            )
            note = ", inconclusive" if name in undecided else ""
            lines.append((f"{title} {numbers.ratio(ours / theirs)}", levels + note))
    return lines[:4]


def noise_note(results: Results) -> str:
    """What was measured twice, where and when."""
    if results.noise is None:
        return ""
    return (
        f"{results.noise.arm} against itself, measured as two arms are: {measured_text(results.noise)}. A difference within "
        "the floor is not told to be better or worse. Between other seeds: what two sets of as many seeds may differ by."
    )


def unfinished(results: Results) -> list[dict[str, str]]:
    """Runs and visits that did not complete or do not count, each with its reason."""
    found = [
        {"what": f"{run.arm}, seed {run.seed}", "outcome": run.outcome, "why": run.message or ""}
        for run in results.runs
        if run.outcome != "completed"
    ]
    found += [
        {"what": f"{visit.arm}, block {visit.block}", "outcome": visit.outcome, "why": visit.message or ""}
        for visit in results.visits
        if visit.outcome != "completed"
    ]
    found += [
        {"what": f"{one.arm}, kernel traces", "outcome": one.outcome, "why": one.message or ""}
        for one in results.traces
        if one.outcome not in ("completed", "missing")
    ]
    return found


# --- figures --------------------------------------------------------------------------------------------


def inline_svg(text: str, *, name: str, title: str) -> str:
    """An SVG file as part of the page: no prolog, unique identifiers, colours of the page's theme."""
    from markupsafe import escape

    svg = text[text.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # a rule for `*` would hold for the page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<g id="[^"]*patch_1">\s*<path d="[^"]*" style="fill: )#ffffff', r"\1none", svg, count=1)
    svg = re.sub(r'(<g id="[^"]*patch_2">\s*<path d="[^"]*" style="fill: )#ffffff', r"\1none", svg, count=1)
    for colour, variable in THEME_VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    label = f'<svg role="img" aria-labelledby="{name}-title"'
    return svg.replace("<svg", label, 1).replace(">", f'><title id="{name}-title">{escape(title)}</title>', 1)
