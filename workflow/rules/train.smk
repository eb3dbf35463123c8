rule train:
    input:
        model_sources,
        data="results/{experiment}/data/manifest.json",
    output:
        record="results/{experiment}/runs/{arm}/seed-{seed}/train/record.json",
        weights="results/{experiment}/runs/{arm}/seed-{seed}/train/model.safetensors",
    log:
        text="logs/{experiment}/train/{arm}/seed-{seed}.log",
        events="results/{experiment}/runs/{arm}/seed-{seed}/train/log.jsonl",
    retries: 1
    threads: lambda wildcards: EXPERIMENT.arms[wildcards.arm].execution.threads
    params:
        stage=lambda wildcards: stage_params("train", arm_settings(wildcards.arm)),
        roots=lambda wildcards: module_roots(EXPERIMENT.arms[wildcards.arm].model.source),
    message:
        "Train {wildcards.arm} at seed {wildcards.seed}"
    shell:
        "stage train --experiment {wildcards.experiment} --arm {wildcards.arm} "
        "--seed {wildcards.seed} --settings {params.stage[settings]:q} "
        "--data results/{wildcards.experiment}/data "
        "--output results/{wildcards.experiment}/runs/{wildcards.arm}/seed-{wildcards.seed}/train "
        "--checkpoint results/{wildcards.experiment}/runs/{wildcards.arm}/seed-{wildcards.seed}/checkpoint "
        "--module-root {params.roots:q} > {log.text} 2>&1"
