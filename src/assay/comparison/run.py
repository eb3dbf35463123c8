"""From an experiment's records to `comparison.json`, `metrics.csv` and `contract.json`."""

import csv
import io
from collections import Counter
from pathlib import Path

from assay.comparison import contract as contract_check
from assay.comparison.analysis import multiplicity_text
from assay.comparison.collect import Collected, Kind, collect, measurements
from assay.comparison.guard import Guard, narrow_margins, read_guard
from assay.comparison.model import (
    Comparison,
    Contract,
    Contrast,
    Failure,
    Found,
    MetricResult,
    Outcomes,
    Ranking,
    VerdictWord,
)
from assay.comparison.predictions import Scores, read_scores
from assay.comparison.question import Question
from assay.comparison.shared import with_examples
from assay.comparison.stopping import looked, of_looks
from assay.comparison.sweep_contract import with_sweep
from assay.comparison.verdict import Judge
from assay.config.schema import Experiment
from assay.records import RecordError, write_atomically
from assay.sweep.select import tuned

COLUMNS = ("arm", "replicate_kind", "replicate", "metric", "value", "unit")
_NAMED_ARMS = 3


def compare(*, experiment_file: Path, results: Path, output: Path) -> Comparison:
    """Compare the arms of a finished experiment.

    `experiment_file` is the resolved experiment, `results` its folder. `comparison.json` is written last:
    where it stands, the other files do too.

    Raises: RecordError naming the file that is missing, damaged or of another experiment.
    """
    as_written = read_resolved(experiment_file)
    experiment = tuned(as_written, results)
    collected = collect(experiment, results)
    contract = contract_check.check(experiment, collected.evidence)
    contract = with_sweep(contract, as_written, experiment, results, collected.evidence)
    guard = read_guard(experiment, results, collected) if experiment.noise.enabled else None
    scores = read_scores(experiment, collected) if contract.valid else {}
    comparison = judge(Question.of(experiment), collected, contract, guard, scores)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "metrics.csv", metrics_csv(collected).encode())
    contract.write(output / "contract.json")
    comparison.write(output / "comparison.json")
    return comparison


def read_experiment(path: Path) -> Experiment:
    """Read the resolved experiment, with the settings that its sweep selected. Raises: RecordError."""
    return tuned(read_resolved(path), path.parent)


def read_resolved(path: Path) -> Experiment:
    """Read the resolved experiment, as its file says. Raises: RecordError."""
    import yaml
    from pydantic import ValidationError

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is
        return Experiment.model_validate(yaml.load(path.read_bytes(), Loader=loader))
    except FileNotFoundError:
        raise RecordError(f"{path}: no resolved experiment; run the experiment first") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise RecordError(
            f"{path}: is not a resolved experiment; run the experiment again: {error}"
        ) from None


def judge(
    question: Question,
    collected: Collected,
    contract: Contract | None,
    guard: Guard | None = None,
    scores: Scores | None = None,
) -> Comparison:
    """The comparison of what was collected: a function of its arguments, without files.

    contract: None where there is none, because Assay did not make the numbers.
    """
    metrics = Judge(question, collected, guard).results()
    metrics = [with_examples(metric, scores or {}, question) for metric in metrics]
    if contract is not None and not contract.valid:
        metrics = [_withheld(metric, contract) for metric in metrics]
    failures = _failures(collected)
    sequential = looked(question, metrics, valid=contract is None or contract.valid)
    return Comparison(
        experiment=question.name,
        question=question.question,
        baseline=question.baseline,
        arms=list(question.arms),
        confidence=question.comparison.confidence,
        alpha=question.alpha,
        resamples=question.comparison.resamples,
        multiplicity=multiplicity_text(question),
        contract="none" if contract is None else "checked",
        valid=contract is None or contract.valid,
        violations=[] if contract is None else contract.violations,
        warnings=[
            *(contract.notes if contract else ()),
            *_of_noise(question, guard, metrics),
            *of_looks(sequential),
            *collected.warnings,
        ],
        sequential=sequential,
        headline=_headline(metrics[0], contract),
        outcomes=_outcomes(question, collected),
        failures=failures,
        metrics=metrics,
    )


def _of_noise(question: Question, guard: Guard | None, metrics: list[MetricResult]) -> list[str]:
    if guard is None:
        return []
    floor = guard.floor
    unknown: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.floor is not None and metric.floor.reason is not None:
            unknown.setdefault(metric.floor.reason, []).append(metric.title)
    found = [f"none for {', '.join(titles)}: {reason}" for reason, titles in unknown.items()]
    if apart := [one.title for one in floor.quantities if one.direction and one.told_apart]:
        found.append(
            f"{floor.arm} and its second self were told apart in {', '.join(apart)}: by chance, as one number in "
            f"{1 / floor.alpha:.0f} is, or because something set them apart; their difference is in the floor"
        )
    return [f"noise floor: {text}" for text in (*found, *guard.notes, *narrow_margins(question, guard))]


def metrics_csv(collected: Collected) -> str:
    """All recorded numbers in long form; an empty value was not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for arm, kind, number, metric, measurement in measurements(collected):
        value = "" if measurement.value is None else repr(measurement.value)
        writer.writerow((arm, kind, number, metric, value, measurement.unit))
    return text.getvalue()


def _withheld(metric: MetricResult, contract: Contract) -> MetricResult:
    """The numbers stay for whoever looks into it, the claim goes."""

    def withhold(contrast: Contrast) -> Contrast:
        sentence = (
            f"No verdict on {contrast.arm} against {contrast.baseline} in {metric.title}: "
            "the arms differ in what the experiment does not declare."
        )
        update = {
            "verdict": "inconclusive",
            "sentence": sentence,
            "reasons": contract.violations,
            "significant": False,
            "within_margin": None,
            "needed": None,
            "posterior": None,
            "sensitivity": None,
        }
        return contrast.model_copy(update=update)

    update: dict[str, object] = {
        "contrasts": [withhold(contrast) for contrast in metric.contrasts],
        "between": [withhold(contrast) for contrast in metric.between],
    }
    if metric.ranking is not None:
        reason = "the arms differ in what the experiment does not declare"
        update["ranking"] = Ranking(confidence=metric.ranking.confidence, reason=reason)
    return metric.model_copy(update=update)


def _headline(metric: MetricResult, contract: Contract | None) -> str:
    if contract is not None and not contract.valid:
        first, count = contract.violations[0], len(contract.violations)
        more = f" (and {count - 1} more)" if count > 1 else ""
        return f"No verdict: the comparison is invalid, because {first}{more}."
    if len(metric.contrasts) <= _NAMED_ARMS:
        return " ".join(contrast.sentence for contrast in metric.contrasts)
    counts = Counter(contrast.verdict for contrast in metric.contrasts)
    words: tuple[VerdictWord, ...] = ("better", "worse", "equivalent", "inconclusive")
    parts = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
    baseline = metric.contrasts[0].baseline
    return f"Of {len(metric.contrasts)} arms against {baseline} in {metric.title}: {parts}."


def _failures(collected: Collected) -> list[Failure]:
    return [
        Failure(
            arm=replicate.arm,
            kind=replicate.kind,
            replicate=replicate.number,
            outcome=replicate.outcome,
            message=replicate.message,
        )
        for replicate in (*collected.runs.values(), *collected.visits.values())
        if replicate.outcome != "completed"
    ]


def _outcomes(question: Question, collected: Collected) -> dict[str, Outcomes]:
    found: dict[str, dict[Kind, Counter[Found]]] = {
        arm: {"seed": Counter(), "block": Counter()} for arm in question.arms
    }
    for replicate in (*collected.runs.values(), *collected.visits.values()):
        found[replicate.arm][replicate.kind][replicate.outcome] += 1
    return {
        arm: Outcomes(runs=dict(counts["seed"]), profiles=dict(counts["block"]))
        for arm, counts in found.items()
    }
