"""What a gate found, as a person reads it."""

from assay.comparison import statistics
from assay.comparison.wording import change_text, floor_text, p_text, value_text
from assay.config.schema import LEAST_NOISE_PAIRS
from assay.gate.model import Case, Gate


def sentence(case: Case, alpha: float) -> str:
    """Why the outcome is what it is."""
    if case.name == "completed":
        return _completion(case)
    if case.way == "not compared":
        return case.sentence
    within = "" if case.margin is None else f" by more than {size(case, case.margin)}"
    if case.outcome == "worse":
        shown = "" if case.way == "exact" else f" ({p_text(case.p_worse_adjusted or 0.0)}, Holm)"
        return f"shown to be worse{within}{shown}"
    if case.outcome == "pass":
        if case.way == "exact":
            return f"not worse{within}: counts are exact"
        if case.p_not_worse is not None and case.p_not_worse > alpha:
            return "the same weights at every seed, bit by bit"
        margin = f" by {size(case, case.margin)} or more" if case.margin is not None else ""
        return f"shown not to be worse{margin} ({p_text(case.p_not_worse or 0.0)})"
    return _undecided(case, alpha)


def _undecided(case: Case, alpha: float) -> str:
    if case.p_worse is not None and case.p_worse <= alpha:
        if case.p_worse_adjusted is not None and case.p_worse_adjusted > alpha:
            return (
                f"worse by the test alone ({p_text(case.p_worse)}), not over all metrics of the gate (Holm)"
            )
        floor = "which is not known" if case.floor is None else size(case, case.floor)
        return f"worse by the test ({p_text(case.p_worse)}), and not beyond the noise floor, {floor}"
    if case.margin is None:
        return (
            "no margin says how much worse may pass: write `margin:` for this metric in the experiment file, or "
            f"--margin {case.name}=SIZE"
        )
    fewest = statistics.pairs_for_any_verdict(alpha, sides=1)
    if case.way.startswith("paired") and case.replicates < fewest:
        return f"a one-sided test needs at least {fewest} pairs to reach p <= {alpha:g}, and there are {case.replicates}"
    return (
        f"neither shown to be worse by more than {size(case, case.margin)} ({p_text(case.p_worse or 0.0)}) nor shown not "
        f"to be ({p_text(case.p_not_worse or 0.0)})"
    )


def _completion(case: Case) -> str:
    lost = f"{value_text(case.candidate or 0.0, 'fraction', 0)} of the candidate's runs complete, "
    lost += f"{value_text(case.baseline or 0.0, 'fraction', 0)} of the baseline's"
    if case.outcome == "pass":
        return "no run is lost that the baseline completes"
    return lost if case.outcome == "worse" else f"{lost}: too few seeds to tell it from chance"


def too_few_sessions(count: int) -> str:
    return (
        "measured at two different times, which no block balances, and "
        f"{'one session tells' if count == 1 else f'{count} sessions tell'} nothing of how sessions differ: give "
        f"--session further measurements of the baseline ({LEAST_NOISE_PAIRS} in all), or make both models arms of one "
        "experiment and leave out --baseline"
    )


def size(case: Case, value: float) -> str:
    return floor_text(case.scale, case.unit, value)


def change(case: Case) -> str:
    return "" if case.estimate is None else change_text(case.scale, case.unit, case.estimate)


def headline(gate_decision: str, cases: list[Case]) -> str:
    named = {
        outcome: [case.title for case in cases if case.outcome == outcome]
        for outcome in ("worse", "inconclusive")
    }
    if gate_decision == "worse":
        return f"Worse: {', '.join(named['worse'])}."
    if gate_decision == "inconclusive":
        return f"Not decided: {', '.join(named['inconclusive'])}."
    return "Passed: the candidate is not worse in any metric."


def text(gate: Gate) -> str:
    """For a terminal and for logs."""
    lines = [f"{gate.headline}", f"  baseline:  {gate.baseline}", f"  candidate: {gate.candidate}", ""]
    width = max((len(case.name) for case in gate.cases), default=0)
    for case in gate.cases:
        moved = f"{change(case)}; " if change(case) else ""
        lines.append(f"  {case.outcome:<12} {case.name:<{width}}  {moved}{case.sentence}")
    for title, found in (
        ("Undeclared differences", gate.violations),
        ("Declared differences", gate.declared),
        ("Notes", gate.notes),
    ):
        if found:
            lines += ["", title, *(f"  - {line}" for line in found)]
    return "\n".join(lines) + "\n"
