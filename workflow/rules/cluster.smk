# What running on a cluster takes beside the rules.
from snakemake.cli import get_appdirs

from assay.slurm.executor import leave_container_program_to_nodes, see_cancelled_jobs
from assay.slurm.requeue import requeue_when_interrupted
from assay.slurm.shadow import named_profiles, shadowed


def unfinished():
    """The text logs of jobs that did not make what they were to make."""
    return [
        Path(job.log[0])
        for job in workflow.dag.needrun_jobs()
        if not all(os.path.exists(path) for path in job.output)
    ]


if workflow.remote_exec:
    requeue_when_interrupted(unfinished)

if ON_CLUSTER and workflow.is_main_process:
    see_cancelled_jobs()
    leave_container_program_to_nodes()

if workflow.is_main_process:
    own = [Path(get_appdirs().user_config_dir), Path(get_appdirs().site_config_dir)]
    for name, hidden in shadowed(named_profiles(sys.argv, os.environ), own):
        logger.warning(f"profile {name}: of this folder, not your own; for that, write --profile {hidden}")


# One task on each node, in the image where there is one. A task tells Apptainer its own variables of Slurm's, not those of the
# node that the job was started on.
TASK = shlex.quote('for name in ${!SLURM_@}; do export "APPTAINERENV_$name=${!name}"; done; exec "$@"')
IN_IMAGE = (
    ""
    if IMAGE is None
    else (
        f"apptainer exec --home {shlex.quote(os.getcwd())} {workflow.deployment_settings.apptainer_args} {shlex.quote(IMAGE_FILE)}"
    )
)
LAUNCH = (
    ":"
    if NODES == 1
    else f"LAUNCH=(srun --nodes={NODES} --ntasks={NODES} --ntasks-per-node=1 --cpus-per-task=$1 --kill-on-bad-exit=0 "
    f"bash -c {TASK} task {IN_IMAGE} env PYTHONPATH={SOURCES})"
)
shell.prefix(PREFIX + f"on_nodes() {{ {LAUNCH}; }}; ".replace("{", "{{").replace("}", "}}"))

SPANNING = {} if NODES == 1 else {"nodes": NODES, "tasks": NODES, "mpi": "srun"}
if NODES > 1 and MOST_GPUS:
    SPANNING["gres"] = f"gpu:{MOST_GPUS}"
