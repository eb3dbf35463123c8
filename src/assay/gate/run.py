"""From two folders of results to a gate."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from assay.comparison.floor import FILE, FOLDER
from assay.comparison.guard import Guard, read_guard
from assay.comparison.model import Contract
from assay.config.metrics import METRICS
from assay.gate import decide, terms, wording
from assay.gate.model import FAILED, INCONCLUSIVE, PASSED, REFUSED, WORSE, Case, Decision, Gate
from assay.gate.sides import GateError, Pair, Side, Unfinished, across, read_side, within

EXIT_CODES: dict[Decision, int] = {
    "pass": PASSED,
    "worse": WORSE,
    "inconclusive": INCONCLUSIVE,
    "refused": REFUSED,
    "unfinished": FAILED,
}
_WORDS: dict[str | None, int] = {"pass": PASSED, "fail": WORSE, None: INCONCLUSIVE}


def gate(
    *,
    candidate: Path,
    baseline: Path | None,
    arm: str | None = None,
    sessions: Iterable[Path] = (),
    changed: Iterable[str] = (),
    margins: Mapping[str, float] | None = None,
    inconclusive: Literal["pass", "fail"] | None = None,
) -> Gate:
    """The candidate against the baseline: a folder of results or an archive; None: its own experiment's baseline arm.

    Raises: GateError for what cannot be asked, ArchiveError and RecordError for damaged files.
    """
    changed, sessions = list(changed), list(sessions)
    with ExitStack() as opened:
        own = read_side(candidate, opened, arm)
        try:
            if baseline is None:
                if changed or sessions:
                    raise GateError("assay gate: --changed and --session need --baseline")
                pair = within(own)
            else:
                other, *further = (read_side(path, opened, own.arm) for path in (baseline, *sessions))
                factors = terms.factors_of(changed, [own.experiment, other.experiment])
                pair = across(own, other, further, factors)
        except Unfinished as error:
            return _unfinished(own, baseline, str(error))
        return _judged(pair, changed, margins or {}, inconclusive)


def _judged(pair: Pair, changed: list[str], margins: Mapping[str, float], inconclusive: str | None) -> Gate:
    pair, notes = _with_margins(pair, margins)
    contract = terms.check(pair, changed)
    found = _described(pair, contract, notes)
    if not contract.valid:
        first, *others = contract.violations
        more = f" (and {len(others)} more)" if others else ""
        headline = f"Refused: {first}{more}. Make it equal, or declare it with --changed."
        return found.ends_with("refused", REFUSED, headline)
    guard, unguarded = _guard(pair)
    cases = decide.cases(pair, guard)
    return _decided(found.model_copy(update={"notes": [*found.notes, *unguarded]}), cases, inconclusive)


def _decided(found: Gate, cases: list[Case], inconclusive: str | None) -> Gate:
    decision = decide.decision(cases)
    code = _WORDS[inconclusive] if decision == "inconclusive" else EXIT_CODES[decision]
    return found.model_copy(update={"cases": cases}).ends_with(
        decision, code, wording.headline(decision, cases)
    )


def _guard(pair: Pair) -> tuple[Guard | None, list[str]]:
    """The baseline's noise floor, where one was measured."""
    side = pair.baseline
    if not (side.folder / FOLDER / FILE).exists():
        if side.experiment.noise.enabled:
            raise GateError(
                f"assay gate: {side.path / FOLDER / FILE}: is missing, and the experiment asks for it"
            )
        return None, []
    guard = read_guard(side.experiment, side.folder, pair.collected if pair.one_session else side.collected)
    return guard, [f"noise floor: {text}" for text in guard.notes]


def _with_margins(pair: Pair, margins: Mapping[str, float]) -> tuple[Pair, list[str]]:
    names = [choice.name for choice in pair.experiment.metrics]
    for name in margins:
        if name not in names:
            known = "" if name in METRICS else ", and Assay knows no such metric"
            raise GateError(
                f"assay gate: --margin {name}: the experiment does not judge it{known}; its metrics are {', '.join(names)}"
            )
    metrics = [
        choice.model_copy(update={"margin": margins.get(choice.name, choice.margin)})
        for choice in pair.experiment.metrics
    ]
    notes = [f"the margin of {name} is {size:g}, from the command line" for name, size in margins.items()]
    return replace(pair, experiment=pair.experiment.model_copy(update={"metrics": metrics})), notes


def _unfinished(candidate: Side, baseline: Path | None, why: str) -> Gate:
    return Gate(
        experiment=candidate.experiment.name,
        baseline=str(baseline or candidate.path),
        candidate=candidate.label,
        candidate_commits=candidate.commits,
        decision="unfinished",
        exit_code=FAILED,
        headline=f"Not judged: {why}.",
        alpha=None,
    )


def _described(pair: Pair, contract: Contract, notes: list[str]) -> Gate:
    declared = [
        f"{line.name}: {'; '.join(f'{who}: {_values(values)}' for who, values in line.evidence.items())} "
        f"({line.declared_by})"
        for line in contract.variables
        if line.status == "declared"
    ]
    return Gate(
        experiment=pair.candidate.experiment.name,
        baseline=pair.baseline.label,
        candidate=pair.candidate.label,
        baseline_commits=pair.baseline.commits,
        candidate_commits=pair.candidate.commits,
        decision="refused",
        exit_code=REFUSED,
        headline="",
        alpha=decide.level(pair),
        violations=contract.violations,
        declared=declared,
        notes=[*notes, *_looks(pair), *contract.notes, *pair.collected.warnings],
        contract=contract.variables,
    )


def _looks(pair: Pair) -> list[str]:
    looks, seeds = pair.experiment.comparison.looks, len(pair.experiment.seeds)
    if looks is None:
        return []
    return [
        f"comparison.looks: after {seeds} of {looks[-1]} seeds; p-values of metrics paired by seed hold over all looks, and are "
        "1 where none so far decides"
    ]


def _values(values: list[str], most: int = 80) -> str:
    text = " or ".join(values)
    return text if len(text) <= most else f"{text[:most]}…"
