rule train:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        by_name(selection),
        data="results/{experiment}/data/manifest.json",
    output:
        record="results/{experiment}/runs/{arm}/seed-{seed}/train/record.json",
        weights="results/{experiment}/runs/{arm}/seed-{seed}/train/model.safetensors",
    log:
        text="logs/{experiment}/train/{arm}/seed-{seed}.log",
    retries: RETRIES
    threads: by_arm(lambda arm: arm.execution.threads * arm.execution.devices)
    resources:
        **SPANNING,
        # A training that needs longer goes on from its checkpoint, which it writes when Slurm warns it.
        runtime=requests.MINUTES["train"],
        slurm_extra="--signal=USR1@120",
        gpu=by_arm(lambda arm: gpus(arm) if NODES == 1 else 0),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads * arm.execution.devices),
            "results/{experiment}/runs/{arm}/seed-{seed}/train",
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=by_name(lambda name: trained("train", name, settings_of(name))),
    message:
        "Train {wildcards.arm} at seed {wildcards.seed}"
    shell:
        "on_nodes {threads}; stage train --processes {resources.processes} --memory-mb {resources.mem_mb} "
        "--at-memory-bound {resources.at_memory_bound} --runs-per-gpu {resources.runs_per_gpu} "
        "--experiment {wildcards.experiment} --arm {wildcards.arm} --seed {wildcards.seed} "
        "{params.stage[arguments]} --manifest {input.data} --record {output.record} > {log.text} 2>&1"


if NODES > 1:
    # Each node enters the image by itself.
    workflow.get_rule("train").container_img = None
