rule resolve_experiment:
    input:
        needs_image(),
        file=ancient(EXPERIMENT_FILE),
    output:
        "results/{experiment}/experiment.yaml",
    log:
        "logs/{experiment}/resolve_experiment.log",
    threads: 1
    params:
        stage=stage_params(
            "resolve",
            overrides=OVERRIDES,
            sha256=sha256_text(canonical_json(EXPERIMENT.model_dump(mode="json"))),
        ),
    message:
        "Write the experiment with every default"
    shell:
        "stage resolve_experiment {params.stage[arguments]} --experiment-file {input.file:q} "
        "--output {output:q} > {log} 2>&1"


rule compare:
    input:
        needs_image(),
        run_targets("results/{experiment}/runs/{arm}/seed-{seed}/evaluate/record.json"),
        run_targets("results/{experiment}/runs/{arm}/seed-{seed}/evaluate/predictions.parquet"),
        profile_targets("results/{experiment}/profile/block-{block}/{arm}/record.json"),
        noise_floor(),
        sweep_files(),
        experiment="results/{experiment}/experiment.yaml",
    output:
        comparison="results/{experiment}/comparison/comparison.json",
        metrics="results/{experiment}/comparison/metrics.csv",
        contract="results/{experiment}/comparison/contract.json",
    log:
        "logs/{experiment}/compare.log",
    threads: 1
    params:
        stage=stage_params("compare"),
    message:
        "Compare the arms"
    shell:
        "stage compare --experiment-file {input.experiment:q} "
        "--results results/{wildcards.experiment} "
        "--output results/{wildcards.experiment}/comparison > {log} 2>&1"
