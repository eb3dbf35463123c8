"""Whether what lies in an archive agrees with itself: records with their places, their schema, their logs and the files that
they tell the checksum of."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assay.archive.calls_for import Belonging, called_for
from assay.archive.zipped import Problem
from assay.comparison.model import Comparison, Contract
from assay.config.schema import Experiment
from assay.records import Record, RecordError, Telemetry, canonical_json, sha256_file, sha256_text
from assay.telemetry.window import Window

_EPOCH = ("step", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
"""What the log and the record both tell of an epoch."""


def agreement(experiment: Experiment, results: Path, name: str) -> Iterator[Problem]:
    """All that does not agree. name: of the folder of results, as problems tell it."""
    for file in called_for(experiment):
        if not (results / file).is_file():
            yield Problem(f"{name}/{file}", "is missing, and the experiment calls for it")
    belonging = Belonging(experiment)
    for path in sorted(results.rglob("record.json")):
        inside = path.relative_to(results)
        if inside not in belonging:
            yield Problem(f"{name}/{inside}", "is of no arm, seed or block of the experiment")
            continue
        try:
            record = Record.read(path)
        except RecordError as error:
            yield Problem(f"{name}/{inside}", _without(str(error), path))
            continue
        for file, text in of_record(experiment, results, inside, record):
            yield Problem(f"{name}/{file}", text)
    for kind, file in ((Comparison, "comparison.json"), (Contract, "contract.json")):
        path = results / "comparison" / file
        try:
            if path.is_file():
                kind.parse(path, "", "it is not as Assay writes it")
        except RecordError as error:
            yield Problem(f"{name}/comparison/{file}", _without(str(error), path))


def _without(text: str, path: Path) -> str:
    """A message without the path of a folder that is gone when it is read."""
    return text.replace(f"{path}: ", "").split("; remove it and run")[0]


def of_record(
    experiment: Experiment, results: Path, inside: Path, record: Record
) -> Iterator[tuple[str, str]]:
    """File in the results and what is wrong with it: a record against its place, its log and what it tells checksums of."""
    for key, value in _place(experiment, inside).items():
        if (found := getattr(record, key)) != value:
            yield str(inside), f"{key}: is {found!r}, and {value!r} belongs here"
    if record.spec_sha256 is not None and record.spec_sha256 != sha256_text(canonical_json(record.spec)):
        yield str(inside), "spec_sha256: is not the checksum of its spec"
    manifest = results / "data" / "manifest.json"
    if record.data_sha256 is not None and manifest.is_file() and record.data_sha256 != sha256_file(manifest):
        yield str(inside), "data_sha256: is not the checksum of data/manifest.json"
    if record.stage in ("train", "evaluate"):
        weights = results / inside.parent.parent / "train" / "model.safetensors"
        if weights.is_file() and record.weights_sha256 != sha256_file(weights):
            yield str(inside), "weights_sha256: is not the checksum of model.safetensors"
    if record.stage == "evaluate":
        yield from _same_weights(results, inside, record)
    if record.stage == "train":
        yield from _log(results, inside, record)
    yield from _telemetry(results, inside, record)


def _place(experiment: Experiment, inside: Path) -> dict[str, Any]:
    """What a record at this place says of itself."""
    parts = inside.parts[1:] if inside.parts[0] == "noise" else inside.parts
    expected: dict[str, Any] = {"experiment": experiment.name}
    match parts:
        case ("runs", arm, seed, stage, _):
            expected |= {"stage": stage, "arm": arm, "seed": int(seed.removeprefix("seed-")), "block": None}
        case ("profile", block, arm, _):
            expected |= {"stage": "profile", "arm": arm, "block": int(block.removeprefix("block-"))}
        case ("trace", arm, _):
            expected |= {"stage": "trace", "arm": arm}
        case ("health", *_):
            expected |= {"stage": "health"}
        case _:
            return {}
    return expected


def _same_weights(results: Path, inside: Path, record: Record) -> Iterator[tuple[str, str]]:
    try:
        trained = Record.read(results / inside.parent.parent / "train" / "record.json")
    except RecordError:
        return
    if record.weights_sha256 is not None and trained.weights_sha256 != record.weights_sha256:
        yield str(inside), "weights_sha256: evaluated other weights than the training beside it left"


# --- the log ------------------------------------------------------------------------------------------------


def _log(results: Path, inside: Path, record: Record) -> Iterator[tuple[str, str]]:
    """The lines of a training against its record: whose they are, each epoch's numbers, and how it ended."""
    path = inside.with_name("log.jsonl")
    if not (results / path).is_file():
        return
    identity = {"experiment": record.experiment, "arm": record.arm, "seed": record.seed, "stage": "train"}
    epochs: dict[int, Mapping[str, Any]] = {}
    ended: Mapping[str, Any] | None = None
    for number, raw in enumerate((results / path).read_bytes().splitlines(), 1):
        try:
            line = json.loads(raw)
            stray = next((key for key, value in identity.items() if line[key] != value), None)
            event, attempt, epoch = line["event"], line["attempt"], line["epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            yield str(path), f"line {number} is no line of a log"
            return
        if stray is not None:
            yield (
                str(path),
                f"line {number}: {stray} is {line[stray]!r}, and {identity[stray]!r} belongs here",
            )
            return
        if event == "epoch" and (epoch not in epochs or epochs[epoch]["attempt"] <= attempt):
            epochs[epoch] = line
        ended = line if event == "finished" else ended
    yield from ((str(path), text) for text in _epochs(epochs, record))
    if ended is None and record.outcome == "completed":
        yield str(path), "does not say that the training finished"
    if ended is not None and ended.get("outcome") != record.outcome:
        yield str(path), f"ended {ended.get('outcome')!r}, and the record says {record.outcome!r}"


def _epochs(epochs: Mapping[int, Mapping[str, Any]], record: Record) -> Iterator[str]:
    history = record.details.get("history")
    told = {line["epoch"]: line for line in history or () if isinstance(line, dict) and "epoch" in line}
    if record.outcome == "completed" and set(told) != set(epochs):
        yield f"has {len(epochs)} epochs, and the record beside it {len(told)}"
        return
    for epoch, line in sorted(told.items()):
        for key in _EPOCH:
            if key in line and key in (logged := epochs.get(epoch, {})) and not _same(logged[key], line[key]):
                yield f"epoch {epoch}: {key} is {logged[key]!r}, and in the record beside it {line[key]!r}"
                return


def _same(logged: Any, recorded: Any) -> bool:
    """A log tells what is no number as text, a record as null."""
    return bool(logged == recorded) or (isinstance(logged, str) and recorded is None)


def _telemetry(results: Path, inside: Path, record: Record) -> Iterator[tuple[str, str]]:
    """The summaries in a record, made again from the samples beside it."""
    summaries = _summaries(record)
    file = inside.with_name("telemetry.jsonl")
    if not summaries:
        return
    if not (results / file).is_file():
        yield str(file), "is missing, and the record beside it sums it up"
        return
    for told, ways in summaries:
        try:
            found = [Window(results / file, **way).summary() for way in ways]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield str(file), f"is no telemetry: {error!r}"
            return
        if told not in found:
            yield str(file), "its samples are not those that the record beside it sums up"
            return


def _summaries(record: Record) -> list[tuple[Telemetry, list[dict[str, Any]]]]:
    """Each summary of a record, and the samples that it may be of: of an attempt, or of one that another process ended."""
    if record.stage == "train" and record.telemetry is not None:
        return [(record.telemetry, [{"identity": {"attempt": record.attempts}}, {"since": record.started}])]
    idle = record.details.get("idle") or {}
    watts = {idle["uuid"]: idle["watts"]} if idle.get("watts") is not None else {}
    return [
        (
            Telemetry.model_validate(visit["telemetry"]),
            [{"identity": {"visit": visit["position"], "attempt": record.attempts}, "idle_watts": watts}],
        )
        for visit in record.details.get("visits") or ()
        if isinstance(visit, dict) and visit.get("telemetry") and "position" in visit
    ]
