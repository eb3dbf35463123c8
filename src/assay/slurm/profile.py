"""The Snakemake profile of a site, from what it offers."""

from dataclasses import dataclass

import yaml

from assay.records import now
from assay.slurm.requests import DEFAULT_MB, DEFAULT_MINUTES, MINUTES
from assay.slurm.site import Node, Partition, Site

MOST_JOBS = 500
"""Submitted at a time, where the site sets no bound."""
LONGEST_POLL = 180
"""Seconds between two questions about jobs, at the most."""
PARTITIONS = "partitions.yaml"


@dataclass(frozen=True)
class Advice:
    """What a person should know or do, by how much it matters."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def profile_text(site: Site, partitions_file: str) -> str:
    """`config.yaml`. partitions_file: where `partitions_text` is written, as Snakemake's working folder sees it."""
    longest = _longest(site)
    resources: dict[str, object] = {"mem_mb": DEFAULT_MB, "runtime": _within(DEFAULT_MINUTES, longest)}
    if site.accounts:
        resources["slurm_account"] = site.accounts[0]
    settings: dict[str, object] = {
        "executor": "slurm",
        "jobs": min(MOST_JOBS, site.most_jobs or MOST_JOBS),
        "slurm-requeue": True,
        "slurm-init-seconds-before-status-checks": 20,
        "latency-wait": 60,
        "default-resources": resources,
    }
    if shorter := {
        rule: {"runtime": longest} for rule, asked in MINUTES.items() if _within(asked, longest) < asked
    }:
        settings["set-resources"] = shorter
    if len(site.partitions) > 1:
        settings["slurm-partition-config"] = partitions_file
    if has_container(site):
        settings["software-deployment-method"] = ["apptainer"]
    settings["slurm-status-command"] = "sacct" if site.accounting else "squeue"
    head = f"# Cluster {site.cluster}, Slurm {site.version}: written {now()[:10]} by `assay slurm-profile`.\n"
    return head + yaml.safe_dump(settings, sort_keys=False)


def _longest(site: Site) -> int | None:
    """Minutes that any job may ask for; None: no limit. Jobs with GPUs fit only where there are some, the others anywhere."""
    limits = [each.minutes for each in site.partitions if each.gpus] or [
        each.minutes for each in site.partitions
    ]
    return None if None in limits else max(filter(None, limits), default=None)


def _within(minutes: int, longest: int | None) -> int:
    return minutes if longest is None else min(minutes, longest)


def partitions_text(site: Site) -> str:
    """The limits by which Slurm's executor chooses a partition for each job."""
    return yaml.safe_dump(
        {"partitions": {each.name: _limits(each) for each in site.partitions}}, sort_keys=False
    )


def _limits(partition: Partition) -> dict[str, object]:
    limits: dict[str, object] = {
        "max_mem_mb": partition.memory_mb,
        "max_threads": partition.cpus,
        "max_cpus_per_task": partition.cpus,
        "max_gpu": partition.gpus,
    }
    if partition.minutes is not None:
        limits["max_runtime"] = partition.minutes
    if partition.gpu_types:
        limits["available_gpu_models"] = list(partition.gpu_types)
    return limits


def has_container(site: Site) -> bool:
    """Whether jobs can run in the image: as the nodes say, else as this one does."""
    known = [node.container or node.module for node in site.nodes]
    return any(known) if known else bool(site.container or site.module)


def advice(site: Site) -> Advice:
    """What stands in the way, and what to know."""
    problems, notes = [], []
    for node in site.nodes:
        problems += _problems(node, site)
    if not has_container(site):
        problems.append(
            "Apptainer was found neither here nor on a node: jobs run on the host, and every record says so. Ask the site "
            "for Apptainer, or load its module and look again"
        )
    if not site.accounting:
        notes.append(
            "accounting does not run here (sacct fails): states are asked of squeue, which knows a job for "
            f"{site.remembered_seconds} s after its end"
        )
        if site.remembered_seconds < LONGEST_POLL:
            problems.append(
                f"without accounting, jobs that end are forgotten before the executor asks again (up to {LONGEST_POLL} s): "
                f"ask the site for MinJobAge of {LONGEST_POLL} s or more"
            )
    untried = [
        each.name for each in site.partitions if each.name not in {node.partition for node in site.nodes}
    ]
    if untried:
        notes.append(f"not looked at from inside, because no job started there in time: {', '.join(untried)}")
    return Advice(tuple(dict.fromkeys(problems)), tuple(notes))


def _problems(node: Node, site: Site) -> list[str]:
    where = f"{node.name} (partition {node.partition})"
    found = []
    if not node.sees_folder:
        found.append(f"{where} does not see this folder: work in one that all nodes share")
    if node.container is None and has_container(site):
        how = (
            f"load its module before Snakemake (module load {node.module}), jobs inherit the path"
            if node.module
            else "choose other partitions, or ask the site for it"
        )
        found.append(f"{where} has no Apptainer on its path: {how}")
    if node.reaches is False:
        found.append(
            f"{where} does not reach the network: build the image and fetch data before, on a node that does "
            "(assay image build FILE)"
        )
    return found


def described(site: Site) -> str:
    """The site in a few lines."""
    lines = [f"cluster {site.cluster}, Slurm {site.version}"]
    for each in site.partitions:
        limit = "no time limit" if each.minutes is None else f"at most {each.minutes} min"
        gpus = f", {each.gpus} GPUs" if each.gpus else ", no GPU"
        types = f" ({', '.join(each.gpu_types)})" if each.gpu_types else ""
        default = " (default)" if each.default else ""
        lines.append(
            f"  partition {each.name}{default}: {each.cpus} CPUs, {each.memory_mb} MiB{gpus}{types} a node, {limit}"
        )
    lines.append(f"  accounts: {', '.join(site.accounts) or 'none kept'}")
    lines.append(f"  accounting: {'runs' if site.accounting else 'does not run'}")
    lines.append(f"  Apptainer here: {site.container or (f'module {site.module}' if site.module else 'no')}")
    for node in site.nodes:
        reaches = {True: "reaches the network", False: "no network", None: "network not tried"}[node.reaches]
        container = node.container or (f"module {node.module}" if node.module else "no Apptainer")
        lines.append(f"  node {node.name} of {node.partition}: {container}, {reaches}")
    return "\n".join(lines)
