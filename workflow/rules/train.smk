rule train:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        data="results/{experiment}/data/manifest.json",
    output:
        record="results/{experiment}/runs/{arm}/seed-{seed}/train/record.json",
        weights="results/{experiment}/runs/{arm}/seed-{seed}/train/model.safetensors",
    log:
        text="logs/{experiment}/train/{arm}/seed-{seed}.log",
        events="results/{experiment}/runs/{arm}/seed-{seed}/train/log.jsonl",
    retries: RETRIES
    threads: by_arm(lambda arm: arm.execution.threads)
    resources:
        # Minutes. A training that needs longer goes on from its checkpoint, which it writes when Slurm warns it.
        runtime=240,
        slurm_extra="--signal=USR1@120",
    params:
        stage=by_arm(
            lambda arm: stage_params("train", settings=arm, module_root=module_roots(arm.model.source))
        ),
    message:
        "Train {wildcards.arm} at seed {wildcards.seed}"
    shell:
        "stage train --experiment {wildcards.experiment} --arm {wildcards.arm} --seed {wildcards.seed} "
        "{params.stage[arguments]} --manifest {input.data} --record {output.record} > {log.text} 2>&1"
