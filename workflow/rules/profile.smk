# A block takes all cores, or on a cluster a node of its own, so that nothing else runs beside a measurement.
rule profile:
    input:
        needs_image(),
        sorted({path for source in MODEL_SOURCES for path in user_sources(source)}),
        [path for name in EXPERIMENT.arms for path in costly_selection(name)],
        data="results/{experiment}/data/manifest.json",
    output:
        records=expand(
            "results/{{experiment}}/profile/block-{{block}}/{arm}/record.json", arm=EXPERIMENT.arms
        ),
    log:
        "logs/{experiment}/profile/block-{block}.log",
    retries: RETRIES
    threads: ALL_CORES
    resources:
        runtime=runtime("profile", "logs/{experiment}/profile/block-{block}.log"),
        gpu=min(1, MOST_GPUS),
        slurm_extra="--exclusive",
        mem_mb=memory_mb(ALL_CORES, "results/{experiment}/profile/block-{block}"),
        processes=PROCESSES,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=stage_params(
            "profile", settings=profile_settings(EXPERIMENT), module_root=module_roots(*MODEL_SOURCES)
        ),
        folder=subpath(output[0], ancestor=2),
    message:
        "Profile all arms, block {wildcards.block}"
    shell:
        "stage profile --processes {resources.processes} --memory-mb {resources.mem_mb} "
        "--at-memory-bound {resources.at_memory_bound} "
        "--experiment {wildcards.experiment} --block {wildcards.block} "
        "{params.stage[arguments]} --data results/{wildcards.experiment}/data "
        "--output {params.folder} > {log} 2>&1"
