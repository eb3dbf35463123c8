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
    rung="[0-9]+",


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


def trained(stage, name, settings, **options):
    """Parameters of a stage that runs the model of an arm."""
    source = (EXPERIMENT.arms | REPEATED.arms)[name].model.source
    return stage_params(stage, settings=settings, module_root=module_roots(source), **options)
