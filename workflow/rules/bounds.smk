"""What each job may take: memory as a resource, by which Snakemake starts no more jobs than there is memory for."""

from assay.isolation.attempts import last_attempt
from assay.isolation.machine import GPU, LEAST_MB, LEAST_WITH_GPU_MB, share_of_memory_mb
from assay.slurm.endings import minutes

LEAST = LEAST_WITH_GPU_MB if device_asked_for() != "cpu" and GPU.exists() else LEAST_MB
PROCESSES = EXPERIMENT.bounds.processes or "auto"
RUNS_PER_GPU = EXPERIMENT.bounds.runs_per_gpu

if not ON_CLUSTER and "mem_mb" not in workflow.global_resources:
    workflow.global_resources["mem_mb"] = share_of_memory_mb(1, 1)


def memory_mb(threads, folder):
    """MiB for a job, unless the experiment says: no parameter, so that no machine reruns anything.

    threads: a number, or a function of wildcards. folder: of the stage. On a cluster a job that ran out of memory is tried
    again with twice as much, one that failed otherwise with as much as before.
    """

    def least(wildcards):
        count = threads(wildcards) if callable(threads) else threads
        share = (
            requests.MB + requests.MB_PER_THREAD * count
            if ON_CLUSTER
            else share_of_memory_mb(count, ALL_CORES, least=LEAST)
        )
        return EXPERIMENT.bounds.memory_mb or share

    def again(wildcards, attempt):
        last = last_attempt(Path(folder.format(**wildcards))) if attempt > 1 else None
        if last is None or last.memory_bound_mb is None:
            return least(wildcards)
        return int(last.memory_bound_mb * (2 if last.ended == "out_of_memory" else 1))

    return again if ON_CLUSTER else least if callable(threads) else least({})


AT_MEMORY_BOUND = (
    (lambda wildcards, attempt: "retry" if attempt <= requests.RETRIES else "result")
    if ON_CLUSTER
    else "result"
)
"""Where a cluster can give more, the last try alone leaves a result. Whoever shares out one machine's memory cannot."""


def runtime(rule, log):
    """Minutes for a job that cannot go on from where it was: more of them where it ran out of time, and nowhere else."""
    return lambda wildcards, attempt: minutes(requests.MINUTES[rule], Path(log.format(**wildcards)), attempt)
