rule evaluate:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        by_name(selection),
        train="results/{experiment}/runs/{arm}/seed-{seed}/train/record.json",
        # Content counts, through the checksum in the training's record: weights may be too large for Snakemake's.
        weights=ancient("results/{experiment}/runs/{arm}/seed-{seed}/train/model.safetensors"),
    output:
        record="results/{experiment}/runs/{arm}/seed-{seed}/evaluate/record.json",
        predictions="results/{experiment}/runs/{arm}/seed-{seed}/evaluate/predictions.parquet",
    log:
        "logs/{experiment}/evaluate/{arm}/seed-{seed}.log",
    retries: RETRIES
    threads: by_arm(lambda arm: arm.execution.threads)
    resources:
        runtime=runtime("evaluate", "logs/{experiment}/evaluate/{arm}/seed-{seed}.log"),
        gpu=by_arm(lambda arm: min(1, gpus(arm))),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads), "results/{experiment}/runs/{arm}/seed-{seed}/evaluate"
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=by_name(lambda name: trained("evaluate", name, settings_of(name))),
    message:
        "Evaluate {wildcards.arm} at seed {wildcards.seed} on the test split"
    shell:
        "stage evaluate --processes {resources.processes} --memory-mb {resources.mem_mb} "
        "--at-memory-bound {resources.at_memory_bound} --runs-per-gpu {resources.runs_per_gpu} "
        "--experiment {wildcards.experiment} --arm {wildcards.arm} --seed {wildcards.seed} "
        "{params.stage[arguments]} --manifest results/{wildcards.experiment}/data/manifest.json "
        "--trained {input.train} --record {output.record} > {log} 2>&1"
