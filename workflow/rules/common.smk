"""The experiment, and what the rules ask about it: target lists, settings, inputs."""

import json
import os
import shlex
import sys

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from functools import cache

from snakemake.exceptions import WorkflowError

from assay.config.load import ConfigError, load
from assay.config.repeated import repeated, second_self
from assay.config.resolve import warnings as experiment_warnings
from assay.config.arm import NAME_PATTERN, spec_of
from assay.config.sweep import SELECTED, TRIALS
from assay.config.trials import (
    as_swept,
    changes_cost,
    costly,
    points,
    settings_at,
    swept_arms,
    trial_count,
)
from assay.data.listing import listing_sha256
from assay.models.sources import check_source, source_files
from assay.records import canonical_json, sha256_text
from assay.session import Session
from assay.sources import stage_sha256

EXPERIMENT_FILE, *others = workflow.configfiles
if others:
    raise WorkflowError(f"one experiment at a time: give one --configfile, not {workflow.configfiles}")
OVERRIDES = canonical_json(dict(workflow.config_settings.config or {}))

try:
    EXPERIMENT = load(Path(EXPERIMENT_FILE), overrides=json.loads(OVERRIDES))
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process and not workflow.dryrun:
    for message in experiment_warnings(EXPERIMENT):
        logger.warning(f"{EXPERIMENT_FILE}: {message}")

REPEATED = repeated(EXPERIMENT)
"""Of the noise floor: one arm under two names."""
SWEPT = swept_arms(EXPERIMENT)
"""Arms whose settings a sweep selects."""
MODEL_SOURCES = [arm.model.source for arm in EXPERIMENT.arms.values()]
MODULE_ROOTS = list(dict.fromkeys([os.path.relpath(Path(EXPERIMENT_FILE).parent), "."]))
session = Session()


wildcard_constraints:
    experiment=NAME_PATTERN.strip("^$"),
    arm=NAME_PATTERN.strip("^$"),
    seed="[0-9]+",
    block="[0-9]+",
    trial="[0-9]+",
    round="[0-9]+",


def run_targets(pattern):
    """One path per arm and seed."""
    return expand(pattern, experiment=EXPERIMENT.name, arm=list(EXPERIMENT.arms), seed=EXPERIMENT.seeds)


def profile_targets(pattern):
    """One path per profile block and arm; none where the experiment does not profile."""
    blocks = range(EXPERIMENT.profile.blocks) if EXPERIMENT.profile.enabled else ()
    return expand(pattern, experiment=EXPERIMENT.name, arm=list(EXPERIMENT.arms), block=blocks)


def trace_targets(pattern):
    """One path per arm; none where the experiment traces no kernels."""
    arms = list(EXPERIMENT.arms) if EXPERIMENT.profile.enabled and EXPERIMENT.profile.traces else []
    return expand(pattern, experiment=EXPERIMENT.name, arm=arms)


def noise_records():
    """What the noise floor is found from; the first training of the arm is the experiment's own."""
    folder, (arm, again) = f"results/{EXPERIMENT.name}", second_self(EXPERIMENT)
    blocks = range(REPEATED.profile.blocks) if REPEATED.profile.enabled else ()
    return [
        *expand(f"{folder}/runs/{arm}/seed-{{seed}}/evaluate/record.json", seed=REPEATED.seeds),
        *expand(f"{folder}/noise/runs/{again}/seed-{{seed}}/evaluate/record.json", seed=REPEATED.seeds),
        *expand(
            f"{folder}/noise/profile/block-{{block}}/{{arm}}/record.json", block=blocks, arm=REPEATED.arms
        ),
    ]


def noise_floor():
    """Of an experiment that asks for one."""
    return [f"results/{EXPERIMENT.name}/noise/floor.json"] if EXPERIMENT.noise.enabled else []


@cache
def user_sources(source):
    """The user's own modules behind a model or data source: editing one reruns what uses it."""
    roots = [Path(root) for root in MODULE_ROOTS]
    try:
        check_source(source, roots)
        return [str(path) for path in source_files(source, roots)]
    except ValueError as error:
        raise WorkflowError(f"{EXPERIMENT_FILE}: {source}: {error}") from None


def by_arm(function):
    """What the jobs of an arm get, from its settings in the file."""
    return by_name(lambda name: function((EXPERIMENT.arms | REPEATED.arms)[name]))


def by_name(function):
    """The same from its name. A value that all arms share is a constant: Snakemake asks for others job by job."""
    values = {name: function(name) for name in EXPERIMENT.arms | REPEATED.arms}
    first = values[EXPERIMENT.baseline]
    return (
        first if all(value == first for value in values.values()) else lambda wildcards: values[wildcards.arm]
    )


def selection(name):
    """The file with the settings that the sweep selects for an arm; none for one that is not tuned. An arm's second self
    has those of the arm."""
    arm, again = second_self(EXPERIMENT)
    name = arm if name == again else name
    return [f"results/{EXPERIMENT.name}/sweep/{name}/{SELECTED}"] if name in SWEPT else []


def selections():
    """Of all arms that are tuned."""
    return [path for name in EXPERIMENT.arms for path in selection(name)]


def sweep_files():
    """What is told of the search: of each arm, all its trials and what was selected."""
    return [f"{os.path.dirname(path)}/{file}" for path in selections() for file in (SELECTED, TRIALS)]


def trial_records(arm, trials=None):
    """One path per trial and seed; trials: which; None: all of the arm's."""
    trials = range(trial_count(EXPERIMENT.sweep, arm)) if trials is None else trials
    pattern = f"results/{EXPERIMENT.name}/sweep/{arm}/trial-{{trial}}/seed-{{seed}}/train/record.json"
    return expand(pattern, trial=trials, seed=EXPERIMENT.sweep.seeds)


def settings_of(name):
    """What a job of an arm is given: the settings, or the file that will hold them."""
    found = selection(name)
    return f"@{found[0]}" if found else (EXPERIMENT.arms | REPEATED.arms)[name]


def costly_selection(name):
    """The same for jobs that are no matter of a setting without cost, however it is tuned."""
    tuned = selection(name) and changes_cost(EXPERIMENT.sweep.space_of(Path(selection(name)[0]).parent.name))
    return selection(name) if tuned else []


def costly_settings(name):
    found = costly_selection(name)
    return f"@{found[0]}" if found else costly(spec_of((EXPERIMENT.arms | REPEATED.arms)[name]))


def profile_settings(experiment):
    """What a profile depends on."""
    arms = {name: costly_settings(name) for name in experiment.arms}
    profile = experiment.profile.model_dump(mode="json", exclude={"enabled", "blocks", "traces"})
    return {"arms": arms, "profile": profile}


def stage_params(stage, **options):
    """What reruns a stage when it changes: the code that it runs, and its settings as it is given them.

    Ready for the command line, because Snakemake formats the command of every job several times.
    """
    words = []
    for name, value in options.items():
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json")
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}"]
        words += [value if isinstance(value, str) else canonical_json(value) for value in values]
    return {"code": stage_sha256(stage), "arguments": shlex.join(words)}


def module_roots(*sources):
    """Where the user's modules are sought; of no account, and so constant, where there are none."""
    return MODULE_ROOTS if any(map(user_sources, sources)) else ["."]


def trained(stage, name, settings):
    """Parameters of a stage that runs the model of an arm."""
    source = (EXPERIMENT.arms | REPEATED.arms)[name].model.source
    return stage_params(stage, settings=settings, module_root=module_roots(source))


POINTS = (
    {arm: points(EXPERIMENT.sweep, arm) for arm in SWEPT}
    if SWEPT and EXPERIMENT.sweep.method != "bayesian"
    else {}
)
"""Of each trial whose settings are known now."""


def trial_params(wildcards):
    """Of one trial. A point that is known is written out, so that a change of the space reruns the trials that it changes."""
    arm, trial = wildcards.arm, int(wildcards.trial)
    if POINTS:
        return trained("train", arm, settings_at(EXPERIMENT.arms[arm], POINTS[arm][trial]))
    return trained("train", arm, f"@{proposal(arm, trial)}#{trial}")


def proposal(arm, trial):
    """The file of the round in which a trial is proposed."""
    return f"results/{EXPERIMENT.name}/sweep/{arm}/proposed/round-{trial // EXPERIMENT.sweep.per_round}.json"


def sweep_params(arm):
    """What a search or a selection depends on: how the arm is swept, and from which settings."""
    sweep = EXPERIMENT.sweep.model_dump(mode="json", exclude={"space", "arms", "equal_budgets"})
    domains = EXPERIMENT.sweep.model_copy(update={"space": EXPERIMENT.sweep.space_of(arm), "arms": {}})
    return stage_params(
        "sweep",
        sweep=sweep | domains.model_dump(mode="json", include={"space"}),
        settings=as_swept(EXPERIMENT.arms[arm], EXPERIMENT.sweep.space_of(arm)),
    )
