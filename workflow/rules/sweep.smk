# Tuning before the comparison: trials are trainings at another place and other seeds. They are never evaluated: selection
# sees the validation split alone. Rounds of Bayesian search wait for one another, so that all of it is known beforehand.
use rule train as train_trial with:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        lambda wildcards: [] if POINTS else proposal(wildcards.arm, int(wildcards.trial)),
        before_rung,
        data="results/{experiment}/data/manifest.json",
    output:
        record="results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/train/record.json",
        # No other job needs them.
        weights=temp("results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/train/model.safetensors"),
    log:
        text="logs/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}.log",
    resources:
        **SPANNING,
        runtime=requests.MINUTES["train_trial"],
        slurm_extra="--signal=USR1@120",
        gpu=by_arm(lambda arm: gpus(arm) if NODES == 1 else 0),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads * arm.execution.devices),
            "results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/train",
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=trial_params,
    message:
        "Tune {wildcards.arm}: trial {wildcards.trial} at seed {wildcards.seed}"


if NODES > 1:
    workflow.get_rule("train_trial").container_img = None


# Up to where trials are compared: a checkpoint, from which those that go on are trained further.
use rule train_trial as train_trial_to_rung with:
    output:
        record="results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/rung-{rung}/record.json",
        weights=temp(
            "results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/rung-{rung}/model.safetensors"
        ),
    log:
        text="logs/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}.rung-{rung}.log",
    resources:
        **SPANNING,
        runtime=requests.MINUTES["train_trial_to_rung"],
        slurm_extra="--signal=USR1@120",
        gpu=by_arm(lambda arm: gpus(arm) if NODES == 1 else 0),
        mem_mb=memory_mb(
            by_arm(lambda arm: arm.execution.threads * arm.execution.devices),
            "results/{experiment}/sweep/{arm}/trial-{trial}/seed-{seed}/rung-{rung}",
        ),
        processes=PROCESSES,
        runs_per_gpu=RUNS_PER_GPU,
        at_memory_bound=AT_MEMORY_BOUND,
    message:
        "Tune {wildcards.arm}: trial {wildcards.trial} at seed {wildcards.seed}, to comparison {wildcards.rung}"


if NODES > 1:
    workflow.get_rule("train_trial_to_rung").container_img = None


rule prune_trials:
    input:
        needs_image(),
        lambda wildcards: [
            path for rung in range(int(wildcards.rung) + 1) for path in rung_records(wildcards.arm, rung)
        ],
    output:
        "results/{experiment}/sweep/{arm}/rungs/rung-{rung}.json",
    log:
        "logs/{experiment}/sweep/{arm}/prune_trials/rung-{rung}.log",
    threads: 1
    params:
        stage=lambda wildcards: sweep_params(wildcards.arm),
    message:
        "Compare the trials of {wildcards.arm} and stop bad ones, comparison {wildcards.rung}"
    shell:
        "stage prune_trials --experiment {wildcards.experiment} --arm {wildcards.arm} --rung {wildcards.rung} "
        "{params.stage[arguments]} --output results/{wildcards.experiment}/sweep/{wildcards.arm} > {log} 2>&1"


# Planned again once it is done: what has its settings already, selected again, does not run again.
checkpoint select_settings:
    input:
        needs_image(),
        lambda wildcards: trial_records(wildcards.arm),
        lambda wildcards: [path for rung in range(len(RUNGS)) for path in rung_records(wildcards.arm, rung)],
    output:
        selected="results/{experiment}/sweep/{arm}/selected.json",
        trials="results/{experiment}/sweep/{arm}/trials.json",
    log:
        "logs/{experiment}/sweep/{arm}/select_settings.log",
    threads: 1
    params:
        stage=lambda wildcards: sweep_params(wildcards.arm),
    message:
        "Select the settings of {wildcards.arm}, by its validation split"
    shell:
        "stage select_settings --experiment {wildcards.experiment} --arm {wildcards.arm} "
        "{params.stage[arguments]} --output results/{wildcards.experiment}/sweep/{wildcards.arm} > {log} 2>&1"


rule propose_trials:
    input:
        needs_image(),
        # Of all rounds before.
        lambda wildcards: trial_records(
            wildcards.arm, range(int(wildcards.round) * EXPERIMENT.sweep.per_round)
        ),
    output:
        "results/{experiment}/sweep/{arm}/proposed/round-{round}.json",
    log:
        "logs/{experiment}/sweep/{arm}/propose_trials/round-{round}.log",
    threads: 1
    params:
        stage=lambda wildcards: sweep_params(wildcards.arm),
    message:
        "Propose trials of {wildcards.arm}, round {wildcards.round}"
    shell:
        "stage propose_trials --experiment {wildcards.experiment} --arm {wildcards.arm} --round {wildcards.round} "
        "{params.stage[arguments]} --output results/{wildcards.experiment}/sweep/{wildcards.arm} > {log} 2>&1"
