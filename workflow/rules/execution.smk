"""Where jobs run: here or on a cluster, on the host or in the image, on how many nodes, cores and GPUs."""

from snakemake.settings.types import DeploymentMethod

from assay.image.recipe import Recipe, place
from assay.isolation.places import share as share_places
from assay.slurm import requests

# Snakemake tells the executor only after this was read, but counts jobs (`--jobs`) where others run them, and cores where it does.
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
RUNS_JOBS = workflow.remote_exec or not ON_CLUSTER
"""Whether this process does: on this machine, or as the one that the cluster started for a job."""

CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
IMAGE = place(Recipe(EXPERIMENT.image.chosen)) if CONTAINED else None

RETRIES = 0 if workflow.remote_exec else requests.RETRIES if ON_CLUSTER else 1
"""Of jobs that the machine can fail. The process that submits a job tries it again, not the one on the node as well."""

MOST_THREADS = max(arm.execution.threads * arm.execution.devices for arm in EXPERIMENT.arms.values())
ALL_CORES = MOST_THREADS if ON_CLUSTER else workflow.resource_settings.cores or MOST_THREADS
"""For jobs that have this machine to themselves; a cluster gives them a node of their own instead."""

if not ON_CLUSTER:
    share_places(os.environ)


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


def device_asked_for():
    """`cuda` if any arm insists on it, `cpu` if all do without, else `auto`."""
    devices = {arm.execution.device for arm in EXPERIMENT.arms.values()}
    return "cuda" if "cuda" in devices else devices.pop() if len(devices) == 1 else "auto"


def needs_image():
    """What every job in the image waits for. It counts by content: the same image, built again, is another file."""
    return [] if IMAGE is None else [IMAGE.lock]


def image_lock():
    """Of the image, where jobs run in one."""
    return "" if IMAGE is None else f"--image-lock {shlex.quote(str(IMAGE.lock))}"


def image_files():
    """The image's lock, where jobs run in one; and the image itself, where the experiment wants it in."""
    wanted = IMAGE is not None and EXPERIMENT.archive.image
    return image_lock() + (f" --image {shlex.quote(str(IMAGE.sif))}" if wanted else "")


def own_folders():
    """Where the user's own files may be, outside the current folder."""
    return [*map(Path, MODULE_ROOTS), *([Path(EXPERIMENT.data.path)] if EXPERIMENT.data.path else [])]
