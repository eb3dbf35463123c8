"""What each job may take: memory as a resource, by which Snakemake starts no more jobs than there is memory for."""

CLUSTER_MB_PER_THREAD = 2048
BOUNDS = f"--processes {EXPERIMENT.bounds.processes}"

if workflow.local_exec and "mem_mb" not in workflow.global_resources:
    workflow.global_resources["mem_mb"] = share_of_memory_mb(1, 1)


def memory_mb(threads):
    """MiB for a job of so many threads, unless the experiment says: no parameter, so that no machine reruns anything."""
    if EXPERIMENT.bounds.memory_mb is not None:
        return EXPERIMENT.bounds.memory_mb
    return share_of_memory_mb(threads, ALL_CORES) if workflow.local_exec else CLUSTER_MB_PER_THREAD * threads
