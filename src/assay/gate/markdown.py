"""The gate as Markdown, for a comment on a pull request."""

import re

from assay.comparison.wording import value_text
from assay.gate.model import Case, Gate
from assay.gate.wording import change, size

MARKS = {
    "pass": "\N{WHITE HEAVY CHECK MARK} pass",
    "worse": "\N{CROSS MARK} worse",
    "inconclusive": "\N{BLACK QUESTION MARK ORNAMENT} undecided",
}
_TITLES = {"pass": "passed", "worse": "worse", "inconclusive": "undecided"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def markdown(gate: Gate) -> str:
    lines = [
        f"### Assay gate: {_TITLES.get(gate.decision, gate.decision)}",
        "",
        _plain(gate.headline),
        "",
        f"Baseline `{_code(gate.baseline)}`{_commits(gate.baseline_commits)}, candidate "
        f"`{_code(gate.candidate)}`{_commits(gate.candidate_commits)}.",
    ]
    if gate.cases:
        lines += [
            "",
            "| | metric | baseline | candidate | change | margin | |",
            "|---|---|--:|--:|--:|--:|---|",
            *map(_row, gate.cases),
        ]
    if gate.alpha is not None:
        lines += [
            "",
            f"At most {100 * gate.alpha:g}% of candidates that are no worse than the margins are called worse, and at most "
            f"{100 * gate.alpha:g}% of those that are worse in a metric pass.",
        ]
    for title, found in (
        ("Undeclared differences", gate.violations),
        ("Declared differences", gate.declared),
        ("Notes", gate.notes),
    ):
        if found:
            lines += [
                "",
                f"<details{' open' if found is gate.violations else ''}><summary>{title}</summary>",
                "",
            ]
            lines += [*(f"- {_plain(line)}" for line in found), "", "</details>"]
    return "\n".join(lines) + "\n"


def _row(case: Case) -> str:
    cells = (
        MARKS[case.outcome],
        f"{_plain(case.title)} (`{case.name}`)",
        _level(case, case.baseline),
        _level(case, case.candidate),
        change(case),
        "" if case.margin is None else size(case, case.margin),
        _plain(case.sentence),
    )
    return f"| {' | '.join(cells)} |"


def _level(case: Case, value: float | None) -> str:
    return "" if value is None else value_text(value, case.unit)


def _commits(commits: list[str]) -> str:
    return "" if not commits else f" ({', '.join(f'`{commit[:12]}`' for commit in commits)})"


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")


def _plain(text: str) -> str:
    """Names and messages from records are text, whatever they hold: no markup, no mention, no second line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("@", "@\N{ZERO WIDTH NON-JOINER}")
