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


# Where trainings ask a cluster for GPUs, all other jobs come to nodes of another kind.
HEALTH = ["results/{experiment}/health/record.json"]
if ON_CLUSTER and MOST_GPUS:
    HEALTH.append("results/{experiment}/health/without-gpu/record.json")

    use rule check_health as check_health_without_gpu with:
        output:
            record=HEALTH[1],
        log:
            "logs/{experiment}/check_health_without_gpu.log",
        resources:
            gpu=0,
        params:
            device="cpu",
        message:
            "Check the health of a node without a GPU"
