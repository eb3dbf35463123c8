"""What Snakemake and its executor for Slurm take amiss on a cluster."""

import shutil
from typing import Any

from assay.slurm.site import CONTAINERS


def see_cancelled_jobs() -> None:
    """Let the executor understand `CANCELLED by UID`, as sacct writes it.

    Version 2.8.0 knows the word CANCELLED alone, and waits for ever for a job that somebody cancelled.
    """
    import snakemake_executor_plugin_slurm as executor

    ask = executor.query_job_status

    async def first_words(*arguments: Any, **options: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask(*arguments, **options)
        if states is not None:
            states = {job: state.partition(" ")[0] for job, state in states.items()}
        return states, seconds

    executor.query_job_status = first_words


def refuse_arrays(settings: object) -> None:
    """Of its job arrays every task may run the first job, and the others are never made (version 2.8.0).

    settings: the executor's; any other's have no arrays. Raises: ValueError.
    """
    rules = getattr(settings, "array_jobs", None)
    if rules:
        raise ValueError(
            f"--slurm-array-jobs={rules}: refused, for every task of an array may run the array's first job; leave it out, here "
            "and in the profile (slurm-array-jobs), and let short jobs share one: --groups evaluate=small "
            "--group-components small=25"
        )


def leave_container_program_to_nodes() -> None:
    """Let a node without Apptainer submit jobs that run in an image on nodes that have it.

    Snakemake looks for the program where it is started, also for an image that is a file already. The processes that
    run jobs look for themselves.
    """
    from snakemake.deployment.singularity import Singularity

    if not any(map(shutil.which, CONTAINERS)):
        Singularity().checked = True
