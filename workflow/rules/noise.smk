# The noise floor: one arm a second time, under another name. Each job is that of a rule before, at another place.
use rule train as train_again with:
    output:
        record="results/{experiment}/noise/runs/{arm}/seed-{seed}/train/record.json",
        weights="results/{experiment}/noise/runs/{arm}/seed-{seed}/train/model.safetensors",
    log:
        text="logs/{experiment}/noise/train/{arm}/seed-{seed}.log",
    resources:
        **SPANNING,
        runtime=requests.MINUTES["train_again"],
        slurm_extra="--signal=USR1@120",
        gpu=by_arm(lambda arm: gpus(arm) if NODES == 1 else 0),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads * arm.execution.devices),
            "results/{experiment}/noise/runs/{arm}/seed-{seed}/train",
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    message:
        "Train {wildcards.arm} at seed {wildcards.seed}, for the noise floor"


if NODES > 1:
    workflow.get_rule("train_again").container_img = None


use rule evaluate as evaluate_again with:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        by_name(selection),
        train="results/{experiment}/noise/runs/{arm}/seed-{seed}/train/record.json",
        weights=ancient("results/{experiment}/noise/runs/{arm}/seed-{seed}/train/model.safetensors"),
    output:
        record="results/{experiment}/noise/runs/{arm}/seed-{seed}/evaluate/record.json",
        predictions="results/{experiment}/noise/runs/{arm}/seed-{seed}/evaluate/predictions.parquet",
    log:
        "logs/{experiment}/noise/evaluate/{arm}/seed-{seed}.log",
    resources:
        runtime=runtime("evaluate_again", "logs/{experiment}/noise/evaluate/{arm}/seed-{seed}.log"),
        gpu=by_arm(lambda arm: min(1, gpus(arm))),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads),
            "results/{experiment}/noise/runs/{arm}/seed-{seed}/evaluate",
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    message:
        "Evaluate {wildcards.arm} at seed {wildcards.seed}, for the noise floor"


use rule profile as profile_again with:
    input:
        needs_image(),
        user_sources(REPEATED.arms[REPEATED.baseline].model.source),
        costly_selection(REPEATED.baseline),
        data="results/{experiment}/data/manifest.json",
    output:
        records=expand(
            "results/{{experiment}}/noise/profile/block-{{block}}/{arm}/record.json", arm=REPEATED.arms
        ),
    log:
        "logs/{experiment}/noise/profile/block-{block}.log",
    resources:
        runtime=runtime("profile_again", "logs/{experiment}/noise/profile/block-{block}.log"),
        gpu=min(1, MOST_GPUS),
        slurm_extra="--exclusive",
        mem_mb=memory_mb(ALL_CORES, "results/{experiment}/noise/profile/block-{block}"),
        processes=PROCESSES,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=stage_params(
            "profile",
            settings=profile_settings(REPEATED),
            module_root=module_roots(REPEATED.arms[REPEATED.baseline].model.source),
        ),
    message:
        "Profile one arm twice, block {wildcards.block}, for the noise floor"


rule find_noise_floor:
    input:
        needs_image(),
        noise_records(),
        experiment="results/{experiment}/experiment.yaml",
    output:
        "results/{experiment}/noise/floor.json",
    log:
        "logs/{experiment}/noise/find_noise_floor.log",
    threads: 1
    params:
        stage=stage_params("compare"),
    message:
        "Find the noise floor"
    shell:
        "stage find_noise_floor --experiment-file {input.experiment:q} "
        "--results results/{wildcards.experiment} --output {output:q} > {log} 2>&1"
