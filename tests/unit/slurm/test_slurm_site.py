"""What Slurm's programs print is read right, and the profile says what the site allows."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from assay.slurm.profile import advice, described, has_container, partitions_text, profile_text
from assay.slurm.shadow import named_profiles, shadowed
from assay.slurm.site import Node, Partition, Site, SlurmError, look, parse_gres, parse_minutes, partitions

DESCRIBED = """\
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL Default=YES RootOnly=NO MaxTime=2-00:00:00 MaxMemPerNode=UNLIMITED State=UP
PartitionName=gpu AllowGroups=ALL AllowAccounts=vision,audio Default=NO RootOnly=NO MaxTime=08:00:00 MaxMemPerNode=64000 State=UP
PartitionName=text AllowGroups=ALL AllowAccounts=language Default=NO RootOnly=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP
PartitionName=old AllowGroups=ALL AllowAccounts=ALL Default=NO RootOnly=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=DOWN
PartitionName=admin AllowAccounts=ALL Default=NO RootOnly=YES MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP
PartitionName=empty AllowAccounts=ALL Default=NO RootOnly=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP
"""
NODES = """\
cpu|64|256000|(null)
cpu|128|512000+|(null)
gpu|32|128000|gpu:a100:4(S:0-1)
gpu|32|128000|gpu:a100:2,gpu:v100:6
text|8|16000|gpu:1
old|8|16000|(null)
admin|8|16000|(null)
"""


def site(**changes: object) -> Site:
    found = partitions(DESCRIBED, NODES, ["vision"])
    whole = Site(
        "hal", "23.11", True, ("vision", "audio"), None, 300, tuple(found), "/usr/bin/apptainer", None
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def node(**changes: object) -> Node:
    return replace(Node("cpu", "c1", "/usr/bin/apptainer", None, True, True), **changes)  # type: ignore[arg-type]


def test_partitions_are_those_that_take_this_users_jobs_with_their_largest_node() -> None:
    assert partitions(DESCRIBED, NODES, ["vision"]) == [
        Partition("cpu", True, 2880, 128, 512000, 0),
        Partition("gpu", False, 480, 32, 64000, 8, ("a100", "v100")),
    ]
    assert [each.name for each in partitions(DESCRIBED, NODES, ["language"])] == ["cpu", "text"]
    assert [each.name for each in partitions(DESCRIBED, NODES, [])] == ["cpu", "gpu", "text"]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("7-00:00:00", 10080),
        ("1-02:03:04", 1563),
        ("08:00:00", 480),
        ("30:00", 30),
        ("UNLIMITED", None),
        ("", None),
    ],
)
def test_time_limits(text: str, minutes: int | None) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("(null)", {}),
        ("gpu:2", {"": 2}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2,gpu:v100:6,nvme:1", {"a100": 2, "v100": 6}),
        ("gpu:nvidia_h100_80gb_hbm3:8(S:0,1)", {"nvidia_h100_80gb_hbm3": 8}),
    ],
)
def test_gpus_by_type(text: str, counts: dict[str, int]) -> None:
    assert parse_gres(text) == counts


def test_the_profile_names_what_the_site_has() -> None:
    profile = yaml.safe_load(profile_text(site(most_jobs=40), "profiles/site/partitions.yaml"))
    assert profile["jobs"] == 40, "the site's bound"
    assert profile["software-deployment-method"] == ["apptainer"]
    assert profile["default-resources"]["slurm_account"] == "vision"
    assert profile["slurm-partition-config"] == "profiles/site/partitions.yaml"
    assert profile["slurm-status-command"] == "sacct" and "set-resources" not in profile
    limits = yaml.safe_load(partitions_text(site()))["partitions"]
    assert limits["gpu"] == {
        "max_mem_mb": 64000,
        "max_threads": 32,
        "max_cpus_per_task": 32,
        "max_gpu": 8,
        "max_runtime": 480,
        "available_gpu_models": ["a100", "v100"],
    }


def rules_with_a_runtime() -> list[str]:
    """As the rules' files have them: what is missing in `requests.MINUTES` would ask for more than a site gives."""
    found = []
    for path in (Path(__file__).parents[3] / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^ *(?=(?:use )?rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            if "runtime=" in rule:
                found.append(rule.split(":")[0].split(" with")[0].split()[-1])
    assert "train" in found and "train_again" in found
    return found


def test_a_site_without_accounting_or_apptainer_and_with_short_limits() -> None:
    one = (Partition("short", True, 30, 8, 16000, 0),)
    poor = site(accounting=False, container=None, accounts=(), partitions=one)
    profile = yaml.safe_load(profile_text(poor, "p.yaml"))
    assert profile["slurm-status-command"] == "squeue"
    assert "software-deployment-method" not in profile and "slurm-partition-config" not in profile
    assert profile["default-resources"] == {"mem_mb": 4000, "runtime": 30}
    assert profile["set-resources"] == {rule: {"runtime": 30} for rule in rules_with_a_runtime()}, (
        "no rule asks for more than the site gives"
    )
    told = advice(poor)
    assert any("jobs run on the host" in problem for problem in told.problems)
    assert any("sacct fails" in note for note in told.notes)
    assert not any("forgotten" in problem for problem in told.problems)
    assert any("forgotten" in problem for problem in advice(replace(poor, remembered_seconds=30)).problems)
    assert any("no job started there in time: short" in note for note in told.notes)


def test_jobs_with_gpus_ask_for_no_more_time_than_nodes_with_gpus_give() -> None:
    long = Partition("cpu", True, 2880, 64, 256000, 0)
    gpus = replace(long, name="gpu", default=False, minutes=120, gpus=4)
    profile = yaml.safe_load(profile_text(site(partitions=(long, gpus)), "p.yaml"))
    assert profile["set-resources"] == {
        rule: {"runtime": 120} for rule in ("train", "train_again", "train_trial", "train_trial_to_rung")
    }
    assert profile["default-resources"]["runtime"] == 60
    endless = site(partitions=(replace(long, minutes=30), replace(gpus, minutes=None)))
    assert "set-resources" not in yaml.safe_load(profile_text(endless, "p.yaml"))


def test_what_nodes_lack_is_a_problem_with_its_cure() -> None:
    module = site(container=None, nodes=(node(container=None, module="apptainer/1.4"), node(partition="gpu")))
    assert has_container(module)
    assert advice(module).problems == (
        "c1 (partition cpu) has no Apptainer on its path: load its module before Snakemake "
        "(module load apptainer/1.4), jobs inherit the path",
    )
    assert advice(site(nodes=(node(), node(partition="gpu")))) == advice(
        site(nodes=(node(), node(partition="gpu")))
    )
    lost = advice(site(nodes=(node(sees_folder=False, reaches=False), node(partition="gpu"))))
    assert [problem.split(":")[0] for problem in lost.problems] == [
        "c1 (partition cpu) does not see this folder",
        "c1 (partition cpu) does not reach the network",
    ]
    assert "node c1 of cpu: /usr/bin/apptainer, no network" in described(site(nodes=(node(reaches=False),)))


def test_apptainer_on_nodes_alone_is_used_and_nowhere_is_not() -> None:
    assert has_container(site(container=None, nodes=(node(),)))
    assert not has_container(site(nodes=(node(container=None),)))


def test_without_slurm_the_missing_programs_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="no Slurm here: sinfo, scontrol, sbatch, srun, squeue not found"):
        look()


def test_a_profile_of_this_folder_that_hides_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, own = tmp_path / "here", tmp_path / "own"
    (here / "slurm").mkdir(parents=True)
    (own / "slurm").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert shadowed(["slurm"], [own, tmp_path / "none"]) == [("slurm", own / "slurm")]
    assert shadowed(["other", str(own / "slurm"), "profiles/slurm"], [own]) == []
    (own / "slurm").rmdir()
    (own / "slurm").symlink_to(here / "slurm")
    assert shadowed(["slurm"], [own]) == [], "the same profile"


def test_profiles_are_named_on_the_command_line_or_else_by_a_variable() -> None:
    variables = {"SNAKEMAKE_PROFILE": "site"}
    assert named_profiles(["snakemake", "--profile", "slurm", "-n"], variables) == ["slurm"]
    assert named_profiles(["snakemake", "--profile=slurm"], variables) == ["slurm"]
    assert named_profiles(["snakemake"], variables) == ["site"]
    assert named_profiles(["snakemake"], {}) == []
