"""One page over a folder of results: every experiment with its verdict, and those that have none with the reason."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from assay.comparison.model import Comparison
from assay.comparison.run import read_experiment
from assay.config.schema import Experiment
from assay.records import RecordError, write_atomically
from assay.reporting import numbers
from assay.reporting.html import environment

FILE = "index.html"
_MARKS = ("experiment.yaml", "comparison", "runs", "profile", "report", "archive")
"""By one of these a folder is known to be an experiment's."""


@dataclass(frozen=True)
class Answer:
    """One arm against the baseline on the headline metric."""

    arms: str
    verdict: str
    estimate: str
    interval: str


@dataclass
class Entry:
    """One experiment."""

    name: str
    question: str = ""
    state: str = "completed"
    """`completed`, `unfinished`, `failed` (it cannot be read) or `violated` (its contract was)."""
    told: str = ""
    """The headline, or why there is none."""
    metric: str = ""
    answers: list[Answer] = field(default_factory=list)
    seeds: str = ""
    last: str = ""
    """When the last record was finished, in UTC; empty: there is none."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """Title and address, from the page's folder."""


def write_index(folder: Path) -> tuple[Path, list[Entry]]:
    """Write `folder/index.html`; returns its path and what it lists.

    Raises: ValueError for a folder that is not there, is an experiment's own, or cannot be read or written.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; write the folder that holds the experiments, e.g. results"
        )
    if (folder / "experiment.yaml").exists():
        raise ValueError(
            f"{folder}: is one experiment; write the folder that holds it: assay index {folder.parent}"
        )
    try:
        entries = sorted(_entries(folder), key=lambda entry: entry.name)
        entries.sort(key=lambda entry: entry.last, reverse=True)
        write_atomically(folder / FILE, page(entries, folder).encode("utf-8", "replace"))
    except OSError as error:
        raise ValueError(f"{error.filename or folder}: {error.strerror}; no index was written") from None
    return folder / FILE, entries


def page(entries: list[Entry], folder: Path) -> str:
    """The page as text, complete without JavaScript. Everything that a user wrote is escaped."""
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            entries=entries,
            folder=_shown(folder.resolve().name),
            more=sum(entry.state != "completed" for entry in entries),
        )
    )


def _entries(folder: Path) -> Iterator[Entry]:
    for path in folder.iterdir():
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            if any((path / mark).exists() for mark in _MARKS):
                yield read_entry(path)
        except (OSError, ValueError) as error:
            yield Entry(_shown(path.name), state="failed", told=_without(str(error), path))


def read_entry(folder: Path) -> Entry:
    """Of one experiment's folder. Raises: ValueError or OSError for what cannot be read at all."""
    entry = Entry(_shown(folder.name), last=_last_finished(folder), links=_links(folder))
    try:
        experiment = read_experiment(folder / "experiment.yaml")
        entry.question, entry.seeds = experiment.question, numbers.span(experiment.seeds)
        if (folder / "comparison" / "comparison.json").exists():
            _tell(entry, Comparison.read(folder / "comparison" / "comparison.json"))
        else:
            entry.state, entry.told = "unfinished", _progress(folder, experiment)
    except RecordError as error:
        entry.state, entry.told = "failed", _without(str(error), folder)
    return entry


def _tell(entry: Entry, comparison: Comparison) -> None:
    entry.told = comparison.headline
    entry.state = "completed" if comparison.valid else "violated"
    if not comparison.metrics:
        return
    metric = comparison.metrics[0]
    entry.metric = metric.title
    for line in metric.contrasts:
        estimate, ends = numbers.contrast(metric, line)
        verdict = line.verdict if comparison.valid else "no verdict"
        entry.answers.append(Answer(f"{line.arm} against {line.baseline}", verdict, estimate, ends))


def _progress(folder: Path, experiment: Experiment) -> str:
    runs = sum(
        (folder / "runs" / arm / f"seed-{seed}" / "evaluate" / "record.json").exists()
        for arm in experiment.arms
        for seed in experiment.seeds
    )
    total = len(experiment.arms) * len(experiment.seeds)
    return f"Not compared yet: {runs:,} of {numbers.counted(total, 'run')} evaluated."


def _last_finished(folder: Path) -> str:
    """Of records that can be read: RFC 3339 in UTC, so that the last is the greatest."""
    last = ""
    for pattern in ("runs/*/seed-*/*/record.json", "profile/block-*/*/record.json"):
        for path in folder.glob(pattern):
            try:
                finished = json.loads(path.read_bytes())["finished"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            last = max(last, finished) if isinstance(finished, str) else last
    return last[:16].replace("T", " ")


def _links(folder: Path) -> list[tuple[str, str]]:
    found = [
        ("report", folder / "report" / "index.html"),
        ("comparison", folder / "comparison" / "comparison.json"),
    ]
    found += [("archive", path) for path in sorted((folder / "archive").glob("*.zip"))]
    return [
        (title, quote(os.fsencode(path.relative_to(folder.parent))))
        for title, path in found
        if path.is_file()
    ]


def _shown(name: str) -> str:
    """A file's name as text, whatever bytes it is of."""
    return os.fsencode(name).decode("utf-8", "replace")


def _without(text: str, folder: Path) -> str:
    """An error's first line, with paths from the results' folder."""
    return text.partition("\n")[0].replace(f"{folder}/", "").replace(str(folder), _shown(folder.name))
