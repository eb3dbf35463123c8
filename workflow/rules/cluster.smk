# What running on a cluster takes beside the rules.
from snakemake.cli import get_appdirs

from assay.slurm.executor import leave_container_program_to_nodes, refuse_arrays, see_cancelled_jobs
from assay.slurm.requeue import requeue_when_interrupted
from assay.slurm.shadow import named_profiles, shadowed


def check_executor():
    """Before any job: Snakemake tells the executor's settings no earlier, and a dry run not at all."""
    try:
        refuse_arrays(workflow.executor_settings)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


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
