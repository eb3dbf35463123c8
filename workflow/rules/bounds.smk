"""What each job may take: memory as a resource, by which Snakemake starts no more jobs than there is memory for."""

CLUSTER_MB_PER_THREAD = 2048
BOUNDS = f"--processes {EXPERIMENT.bounds.processes or 'auto'}"

if not ON_CLUSTER and "mem_mb" not in workflow.global_resources:
    workflow.global_resources["mem_mb"] = share_of_memory_mb(1, 1)


def memory_mb(threads, folder=None):
    """MiB for a job of so many threads, unless the experiment says: no parameter, so that no machine reruns anything.

    folder: of the stage. On a cluster a job that ran out of memory gets twice as much when it is tried again; one that
    failed otherwise, as much as before.
    """
    if not ON_CLUSTER:
        return EXPERIMENT.bounds.memory_mb or share_of_memory_mb(threads, ALL_CORES)
    least = EXPERIMENT.bounds.memory_mb or CLUSTER_MB_PER_THREAD * threads
    if folder is None:
        return least

    def again(wildcards, attempt):
        last = last_attempt(Path(folder.format(**wildcards))) if attempt > 1 else None
        if last is None or last.memory_bound_mb is None:
            return least
        return int(last.memory_bound_mb * (2 if last.ended == "out_of_memory" else 1))

    return again


def at_memory_bound(retries):
    """What a job does that crosses its bound: on a cluster it is tried again with more; the last of its tries is a result."""
    if not ON_CLUSTER:
        return "result"
    return lambda wildcards, attempt: "retry" if attempt <= retries else "result"
