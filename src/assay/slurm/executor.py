"""What Snakemake's executor for Slurm needs to see every end of a job."""

from typing import Any


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
