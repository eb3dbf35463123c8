rule resolve_experiment:
    output:
        "results/{experiment}/experiment.yaml",
    log:
        "logs/{experiment}/resolve_experiment.log",
    threads: 1
    params:
        stage=stage_params("resolve", sha256_text(canonical_json(EXPERIMENT.model_dump(mode="json")))),
    message:
        "Write the experiment with every default"
    shell:
        "{PYTHON} {SCRIPTS}/resolve_experiment.py --experiment-file {EXPERIMENT_FILE:q} "
        "--overrides {OVERRIDES:q} --sha256 {params.stage[settings]} --output {output:q} > {log} 2>&1"


rule compare:
    input:
        run_targets("results/{experiment}/runs/{arm}/seed-{seed}/evaluate/record.json"),
        profile_targets("results/{experiment}/profile/block-{block}/{arm}/record.json"),
        experiment="results/{experiment}/experiment.yaml",
    output:
        comparison="results/{experiment}/comparison/comparison.json",
        metrics="results/{experiment}/comparison/metrics.csv",
        contract="results/{experiment}/comparison/contract.json",
    log:
        "logs/{experiment}/compare.log",
    threads: 1
    params:
        stage=stage_params("compare", ""),
    message:
        "Compare the arms"
    shell:
        "{PYTHON} {SCRIPTS}/compare.py --experiment-file {input.experiment:q} "
        "--results results/{wildcards.experiment} "
        "--output results/{wildcards.experiment}/comparison > {log} 2>&1"
