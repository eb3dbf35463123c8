"""The contract of a sweep: equal budgets, equal circumstances, and settings that the trials' records select."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from assay.comparison import contract as checks
from assay.comparison.circumstances import circumstances
from assay.comparison.collect import Evidence, Reader
from assay.comparison.contract import BATCH_SETTINGS, flatten
from assay.comparison.model import Contract, Variable
from assay.comparison.variables import ABSENT, Getter, factor_of, variable
from assay.config.arm import spec_of
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER, SELECTED, TRIALS, Sweep
from assay.config.trials import sweep_epochs, swept_arms, trial_count
from assay.records import RecordError, canonical_json
from assay.sweep.model import Selected, Trials
from assay.sweep.read import record_path
from assay.sweep.select import search


@dataclass
class _Found:
    """What the trials of all arms say. `evidence`: of trial and seed, with `stage` trial."""

    missing: dict[str, list[str]] = field(default_factory=dict)
    seeds: dict[str, set[int]] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)


def with_sweep(
    contract: Contract, as_written: Experiment, experiment: Experiment, results: Path, runs: list[Evidence]
) -> Contract:
    """The contract with the sweep's part, where the experiment has one.

    as_written: with the settings of the file; experiment: with those that were selected. runs: of the comparison.

    Raises: RecordError for a record of a trial that is damaged or of something else.
    """
    sweep = as_written.sweep
    if sweep is None:
        return contract
    found = _read(as_written, sweep, results)
    searched = {arm: _searched(as_written, arm, results) for arm in swept_arms(as_written)}
    lines = [
        _trials(as_written, sweep, found),
        _epochs(as_written, found),
        _compute(as_written, sweep, searched),
        _seeds(as_written, sweep, found),
        _data(found, runs),
        _batches(found),
        _circumstances(found, checks.declared_differences(experiment)),
        _selection(experiment, searched, results),
    ]
    variables = [*contract.variables, *lines]
    valid = not any(line.status == "violated" for line in variables)
    return contract.model_copy(update={"variables": variables, "valid": valid})


def _read(experiment: Experiment, sweep: Sweep, results: Path) -> _Found:
    """Trials by number and seed; a trial of one arm is paired with that of another."""
    found, reader = _Found(), Reader(experiment, results, results / "data")
    for arm in experiment.arms:
        found.missing[arm], found.seeds[arm] = [], set()
        for trial in range(trial_count(sweep, arm)):
            for order, seed in enumerate(sweep.seeds):
                if not reader.trial(record_path(results / FOLDER / arm, trial, seed), arm, seed):
                    found.missing[arm].append(f"trial {trial} at seed {seed}")
                    continue
                found.seeds[arm].add(seed)
                pair = trial * len(sweep.seeds) + order
                found.evidence.append(replace(reader.evidence[-1], stage="trial", replicate=pair))
    return found


def _trials(experiment: Experiment, sweep: Sweep, found: _Found) -> Variable:
    seeds = len(sweep.seeds)
    counts = {arm: sum(one.arm == arm for one in found.evidence) for arm in experiment.arms}
    shown = {
        arm: [f"{count} trainings ({trial_count(sweep, arm)} trials, seeds: {seeds})"]
        for arm, count in counts.items()
    }
    lacking = next((arm for arm, missing in found.missing.items() if missing), None)
    message = factor = None
    if lacking is not None:
        missing = found.missing[lacking]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        status = "violated"
        message = f"the sweep's budgets are not equal: {lacking} has no record of {missing[0]}{more}"
    elif len(set(counts.values())) > 1:
        status, factor = ("violated", None) if sweep.equal_budgets else ("declared", "sweep.equal_budgets")
        told = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        message = f"the sweep's budgets are not equal: trainings of {told}"
    else:
        status = "equal"
    return _variable("trials", status, len(found.evidence), shown, message, factor)


def _epochs(experiment: Experiment, found: _Found) -> Variable:
    """Of the settings, which decide what a trial may use; one that diverged used less."""
    values = _by_arm(found.evidence, lambda one: str(json.loads(one.spec)["training"]["epochs"]))
    factor = factor_of("training.epochs", experiment.factors)
    differ = len(set().union(*values.values(), ())) > 1
    status = "equal" if not differ else "declared" if factor else "violated"
    message = f"trials had different epochs: {_listing(values)}" if differ else None
    return _variable("epochs", status, len(found.evidence), values, message, factor)


def _searched(experiment: Experiment, arm: str, results: Path) -> tuple[Trials, Selected] | RecordError:
    """What the records of an arm's trials give, or why they give nothing."""
    assert experiment.sweep is not None
    folder = results / FOLDER / arm
    try:
        return search(experiment.name, arm, experiment.sweep, experiment.arms[arm], folder)
    except RecordError as error:
        return error


def _compute(
    experiment: Experiment, sweep: Sweep, searched: Mapping[str, tuple[Trials, Selected] | RecordError]
) -> Variable:
    """Epochs that tuning each arm may take, and took: less only where trials failed."""
    planned = {
        arm: sweep_epochs(sweep, arm, experiment.arms[arm].training.epochs) if arm in searched else 0
        for arm in experiment.arms
    }
    spent: dict[str, int | None] = {}
    failed: dict[str, int] = {}
    for arm, found in searched.items():
        runs = [] if isinstance(found, RecordError) else [run for one in found[0].trials for run in one.runs]
        failed[arm] = sum(run.outcome not in ("completed", "pruned") for run in runs)
        spent[arm] = None if isinstance(found, RecordError) else found[0].epochs_spent
    shown = {
        arm: [
            f"{spent[arm]} of {planned[arm]} epochs"
            + (f", {failed[arm]} trainings failed" if failed[arm] else "")
        ]
        for arm in searched
        if spent[arm] is not None
    }
    off = next((arm for arm in shown if spent[arm] != planned[arm] and not failed[arm]), None)
    message = factor = None
    if off is not None:
        status = "violated"
        message = f"tuning {off} took {spent[off]} epochs, and its budget is {planned[off]}"
    elif len(set(planned.values())) > 1:
        factor = factor_of("training.epochs", experiment.factors)
        factor = factor or (None if sweep.equal_budgets else "sweep.equal_budgets")
        status = "declared" if factor else "violated"
        told = ", ".join(f"{arm} {epochs}" for arm, epochs in planned.items())
        message = f"the sweep's budgets are not equal: epochs of {told}"
    else:
        status = "equal" if len(shown) == len(searched) else "unknown"
    return _variable("compute", status, len(shown), shown, message, factor)


def _seeds(experiment: Experiment, sweep: Sweep, found: _Found) -> Variable:
    values = {arm: [", ".join(map(str, sorted(seeds)))] for arm, seeds in found.seeds.items() if seeds}
    shared = sorted(set().union(*found.seeds.values()) & set(experiment.seeds))
    message = None
    if shared:
        message = f"settings were tuned at seeds of the comparison: {', '.join(map(str, shared))}"
    elif any(seeds != set(sweep.seeds) for seeds in found.seeds.values() if seeds):
        message = f"trials were trained at different seeds: {_listing(values)}"
    status = "violated" if message else "equal"
    return _variable("seeds", status, len(found.evidence), values, message)


def _data(found: _Found, runs: list[Evidence]) -> Variable:
    values = _by_arm(found.evidence, lambda one: one.data)
    of_runs = {one.data for one in runs if one.data is not None}
    everything = set().union(*values.values(), of_runs)
    message = "settings were tuned on other data than were compared" if len(everything) > 1 else None
    status = "violated" if message else "equal" if everything else "unknown"
    return _variable("data", status, len(found.evidence), values, message)


def _batches(found: _Found) -> Variable:
    """Trials with the same settings of batches saw the same ones at the same seed, whatever the arm."""
    kinds: dict[str, int] = {}
    grouped = []
    for one in found.evidence:
        spec = flatten(json.loads(one.spec))
        decisive = {path: value for path, value in spec.items() if factor_of(path, BATCH_SETTINGS)}
        seed = one.path.parts[-3]
        number = kinds.setdefault(canonical_json([seed, decisive]), len(kinds))
        if one.completed and one.batches is not None:
            grouped.append(replace(one, replicate=number))
    seen: dict[int, set[str]] = {}
    for one in grouped:
        seen.setdefault(one.replicate, set()).add(str(one.batches))
    differ = any(len(values) > 1 for values in seen.values())
    message = "trials at the same seed and settings of batches saw different batches" if differ else None
    status = "violated" if differ else "equal" if grouped else "unknown"
    return _variable("batches", status, len(grouped), {}, message)


def _circumstances(found: _Found, declared: Mapping[str, str]) -> Variable:
    """Packages, image, code, device and threads of each trial, between arms."""
    lines = circumstances(found.evidence, declared, profiled=False)
    differences = [line for line in lines if line.status == "violated"]
    messages = [f"trials: {line.message}" for line in differences]
    status = "violated" if differences else "equal" if found.evidence else "unknown"
    evidence = differences[0].evidence if differences else {}
    return _variable(
        "circumstances", status, len(found.evidence), evidence, messages[0] if messages else None
    )


def _selection(
    experiment: Experiment, searched: Mapping[str, tuple[Trials, Selected] | RecordError], results: Path
) -> Variable:
    """What was selected is what the records give, once more."""
    evidence: dict[str, list[str]] = {}
    message = None
    for arm, found in searched.items():
        folder = results / FOLDER / arm
        try:
            if isinstance(found, RecordError):
                raise found
            told, selected = found
            kept, used = Trials.read(folder / TRIALS), Selected.read(folder / SELECTED)
        except RecordError as error:
            message, evidence[arm] = message or str(error), [ABSENT]
            continue
        evidence[arm] = [canonical_json(used.point)]
        if used != selected or spec_of(experiment.arms[arm]) != selected.settings:
            message = message or (
                f"{folder / SELECTED}: is not what the trials' records give (trial {selected.trial}); "
                "remove it and run the experiment again"
            )
        elif kept != told:
            message = message or f"{folder / TRIALS}: is not what its records give; remove it and run again"
    status = "violated" if message else "declared"
    return _variable("selection", status, len(evidence), evidence, message, "sweep")


def _by_arm(evidence: list[Evidence], get: Getter) -> dict[str, list[str]]:
    values: dict[str, set[str]] = {}
    for one in evidence:
        if (value := get(one)) is not None:
            values.setdefault(one.arm, set()).add(value)
    return {arm: sorted(found) for arm, found in values.items()}


def _listing(values: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{arm}: {' or '.join(found)}" for arm, found in values.items())


def _variable(
    name: str,
    status: str,
    checked: int,
    evidence: Mapping[str, list[str]],
    message: str | None = None,
    factor: str | None = None,
) -> Variable:
    return variable(f"sweep.{name}", status, checked, evidence, message, factor)
