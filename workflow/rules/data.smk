rule prepare_data:
    input:
        needs_image(),
        HEALTH,
        user_sources(EXPERIMENT.data.source),
    output:
        manifest="results/{experiment}/data/manifest.json",
    log:
        "logs/{experiment}/prepare_data.log",
    retries: RETRIES
    threads: 1
    resources:
        runtime=runtime("prepare_data", "logs/{experiment}/prepare_data.log"),
        mem_mb=memory_mb(ALL_CORES, "results/{experiment}/data"),
        processes=PROCESSES,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=stage_params("data", settings=EXPERIMENT.data, module_root=module_roots(EXPERIMENT.data.source)),
        files=listing_sha256(EXPERIMENT.data.path) if EXPERIMENT.data.source == "folder" else "",
    message:
        "Prepare the data of {wildcards.experiment}"
    shell:
        "stage prepare_data --processes {resources.processes} --memory-mb {resources.mem_mb} "
        "--at-memory-bound {resources.at_memory_bound} "
        "{params.stage[arguments]} --output results/{wildcards.experiment}/data > {log} 2>&1"
