rule check_health:
    input:
        needs_image(),
    output:
        record="results/{experiment}/health/record.json",
    log:
        "logs/{experiment}/check_health.log",
    threads: 1
    resources:
        gpu=min(1, MOST_GPUS),
    params:
        # Not the code: a better check of a node is no reason to train again. (An `ancient` edge to it would hide every other
        # reason that jobs behind it have to run.)
        device=device_asked_for(),
    message:
        "Check this node's health"
    shell:
        "stage check_health --experiment {wildcards.experiment} --device {params.device} "
        "--record {output.record} > {log} 2>&1"
