"""What is wrong with an experiment file, all of it at once."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


def dotted(path: Sequence[str | int]) -> str:
    """`arms.cnn.training.epochs`, `seeds[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that the user most likely meant."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands (`overridden`: on the command line), what is wrong, what to write instead."""

    path: Path
    what: str
    instead: str = ""
    line: int | None = None
    overridden: bool = False

    def text(self, file: str) -> str:
        place = f"{file}:{self.line}" if self.line else f"{file}, --config" if self.overridden else file
        key = f" {dotted(self.path)}:" if self.path else ""
        return f"{place}:{key} {self.what}" + (f"; {self.instead}" if self.instead else "")


class ConfigError(ValueError):
    """Every problem of one experiment file, a line each."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems, key=lambda problem: (problem.line or 0, dotted(problem.path)))
        super().__init__("\n".join(problem.text(file) for problem in self.problems))


def short(value: Any) -> str:
    """A value as it stands in the file, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
