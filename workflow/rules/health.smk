rule check_health:
    input:
        needs_image(),
    output:
        record="results/{experiment}/health/record.json",
    log:
        "logs/{experiment}/check_health.log",
    threads: 1
    params:
        stage=stage_params("health", device=device_asked_for()),
    message:
        "Check this node's health"
    shell:
        "stage check_health --experiment {wildcards.experiment} {params.stage[arguments]} "
        "--record {output.record} > {log} 2>&1"
