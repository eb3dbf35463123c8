"""The experiment, and what the rules ask about it: target lists, settings, inputs."""

import json
import os
import shlex
import sys

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from functools import cache

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from assay.config.load import ConfigError, load
from assay.config.resolve import warnings as experiment_warnings
from assay.config.schema import NAME_PATTERN
from assay.data.listing import listing_sha256
from assay.image.recipe import Recipe, place
from assay.image.running import arguments as image_arguments
from assay.image.running import confine, names_lock
from assay.isolation.attempts import last_attempt
from assay.isolation.machine import GPU, LEAST_MB, LEAST_WITH_GPU_MB, share_of_memory_mb
from assay.isolation.places import share as share_places
from assay.models.sources import check_source, source_files
from assay.records import canonical_json, sha256_text
from assay.session import Session
from assay.slurm.endings import JOB, minutes
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

MODEL_SOURCES = [arm.model.source for arm in EXPERIMENT.arms.values()]
MODULE_ROOTS = list(dict.fromkeys([os.path.relpath(Path(EXPERIMENT_FILE).parent), "."]))
session = Session()

CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
"""Whether jobs run in the image: where Snakemake is told to use containers, else they run on the host."""

ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
"""Whether jobs run on other nodes; there `workflow.remote_exec`. Snakemake tells the executor only after this was read, but
counts jobs (`--jobs`) where others run them, and cores where it does."""


def gpus(arm):
    """Of a training, on each of its nodes. An arm that takes what there is (`device: auto`) asks a cluster for none."""
    return arm.execution.devices if arm.execution.device == "cuda" else 0


MOST_GPUS = max(map(gpus, EXPERIMENT.arms.values()))
NODES = max(arm.execution.nodes for arm in EXPERIMENT.arms.values())
if NODES > 1 and not ON_CLUSTER:
    raise WorkflowError(
        f"{EXPERIMENT_FILE}: execution.nodes: {NODES} needs a cluster (snakemake --profile slurm); on this machine write nodes: 1"
    )
if any(arm.execution.nodes != NODES for arm in EXPERIMENT.arms.values()):
    raise WorkflowError(
        f"{EXPERIMENT_FILE}: execution.nodes: all arms of an experiment train on as many nodes; write nodes: {NODES} for all"
    )

CLUSTER_RETRIES = 3
RETRIES = 0 if workflow.remote_exec else CLUSTER_RETRIES if ON_CLUSTER else 1
"""Of jobs that the machine can fail. The process that submits a job tries it again, not the one on the node as well."""

MOST_THREADS = max(arm.execution.threads * arm.execution.devices for arm in EXPERIMENT.arms.values())
ALL_CORES = MOST_THREADS if ON_CLUSTER else workflow.resource_settings.cores or MOST_THREADS
"""For jobs that have this machine to themselves; a cluster gives them a node of their own instead."""

IMAGE = place(Recipe(EXPERIMENT.image.chosen)) if CONTAINED else None
IMAGE_FILE = None if IMAGE is None else str(IMAGE.sif)
if not ON_CLUSTER:
    share_places(os.environ)
if CONTAINED:
    names_lock(os.environ, IMAGE.lock)
    confine(os.environ)

# `stage NAME …` becomes an entry point, run with the package of this checkout by this interpreter or the image's: no shell is
# left between Snakemake and the job that a signal could end first. LAUNCH stands before it (`on_nodes THREADS`). -P: scripts do
# not hide modules of the same name. Braces are doubled because Snakemake formats the prefix. Telemetry stands here and not among
# the parameters of rules: how closely runs are watched decides nothing that they compute, so changing it reruns nothing.
SOURCES, SCRIPTS = (shlex.quote(f"{workflow.basedir}/{folder}") for folder in ("src", "workflow/scripts"))
TELEMETRY = f"--telemetry {EXPERIMENT.telemetry.interval:g}" if EXPERIMENT.telemetry.enabled else ""
PYTHON = "python3" if CONTAINED else shlex.quote(sys.executable)
PREFIX = (
    f"export PYTHONPATH={SOURCES}; LAUNCH=(); "
    f'stage() {{{{ local name=$1; shift; [ -z "${{{{SLURM_JOB_ID:-}}}}" ] || echo "{JOB.format("$SLURM_JOB_ID")}"; '
    f'case $name in train|profile) set -- "$@" {TELEMETRY};; esac; '
    f'exec "${{{{LAUNCH[@]}}}}" {PYTHON} -P {SCRIPTS}/"$name".py "$@"; }}}}; '
)
shell.prefix(PREFIX)


wildcard_constraints:
    experiment=NAME_PATTERN.strip("^$"),
    arm=NAME_PATTERN.strip("^$"),
    seed="[0-9]+",
    block="[0-9]+",


def run_targets(pattern):
    """One path per arm and seed."""
    return expand(pattern, experiment=EXPERIMENT.name, arm=list(EXPERIMENT.arms), seed=EXPERIMENT.seeds)


def profile_targets(pattern):
    """One path per profile block and arm; none where the experiment does not profile."""
    blocks = range(EXPERIMENT.profile.blocks) if EXPERIMENT.profile.enabled else ()
    return expand(pattern, experiment=EXPERIMENT.name, arm=list(EXPERIMENT.arms), block=blocks)


@cache
def user_sources(source):
    """The user's own modules behind a model or data source: editing one reruns what uses it."""
    roots = [Path(root) for root in MODULE_ROOTS]
    try:
        check_source(source, roots)
        return [str(path) for path in source_files(source, roots)]
    except ValueError as error:
        raise WorkflowError(f"{EXPERIMENT_FILE}: {source}: {error}") from None


def needs_image():
    """What every job in the image waits for. It counts by content: the same image, built again, is another file."""
    return [] if IMAGE is None else [IMAGE.lock]


def own_folders():
    """Where the user's own files may be, outside the current folder."""
    return [*map(Path, MODULE_ROOTS), *([Path(EXPERIMENT.data.path)] if EXPERIMENT.data.path else [])]


def device_asked_for():
    """`cuda` if any arm insists on it, `cpu` if all do without, else `auto`."""
    devices = {arm.execution.device for arm in EXPERIMENT.arms.values()}
    return "cuda" if "cuda" in devices else devices.pop() if len(devices) == 1 else "auto"


def by_arm(function):
    """What the jobs of an arm get. A value that all arms share is a constant: Snakemake asks for others job by job."""
    values = {name: function(arm) for name, arm in EXPERIMENT.arms.items()}
    first = values[EXPERIMENT.baseline]
    return (
        first if all(value == first for value in values.values()) else lambda wildcards: values[wildcards.arm]
    )


def profile_settings():
    """What a profile depends on: settings that change no cost are left out, so that they rerun none."""
    costless = {
        "training": {"epochs", "schedule", "label_smoothing", "select", "checkpoint_seconds"},
        "execution": {"devices", "nodes"},
    }
    arms = {name: arm.model_dump(mode="json", exclude=costless) for name, arm in EXPERIMENT.arms.items()}
    for arm in arms.values():
        del arm["training"]["optimizer"]["learning_rate"]
    profile = EXPERIMENT.profile.model_dump(mode="json", exclude={"enabled", "blocks"})
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
