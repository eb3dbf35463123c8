"""The cluster that other tests start is a real Slurm: it schedules, signals, preempts, requeues and accounts."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import slurm_cluster
from ports import in_use
from slurm_cluster import ACCOUNT, GPUS_PER_NODE, MISSING, NODES, Cluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"Slurm is not installed: apt-get install --no-install-recommends {' '.join(MISSING)}",
    ),
]

# Slurm checks time limits twice a minute.
TIME_LIMIT_SECONDS = 60.0

NOTE_SIGNAL = "trap 'echo signalled; exit 0' USR1; echo started; sleep 300 & wait"
STOP_WHEN_RESTARTED = (
    'echo "start ${SLURM_RESTART_COUNT:-0} on $SLURMD_NODENAME"; [ -n "$SLURM_RESTART_COUNT" ] ||'
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cluster" in request.fixturenames:
        cluster = request.getfixturevalue("cluster")
        cluster.run("scancel", "--user", str(os.getuid()))
        cluster.wait_until(lambda: not cluster.run("squeue", "--noheader"), 30)


def submit(cluster: Cluster, folder: Path, script: str, *options: str) -> str:
    """A job in Bash that writes to JOB.out in the folder, where Slurm's own words about it go to JOB.err."""
    path = folder / "job.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    options = (*options, f"--chdir={folder}", "--output=%j.out", "--error=%j.err", "--open-mode=append")
    return cluster.run("sbatch", "--parsable", *options, str(path)).strip()


def queue(cluster: Cluster, job: str, what: str) -> str:
    return cluster.run("squeue", "--noheader", "--states=all", f"--job={job}", f"--Format={what}:80").strip()


def accounts(cluster: Cluster, job: str, what: str, *options: str) -> list[str]:
    command = ("sacct", "--noheader", "--parsable2", f"--jobs={job}", f"--format={what}", *options)
    return cluster.run(*command).splitlines()


def wait_for_state(cluster: Cluster, job: str, state: str, seconds: float = 30) -> None:
    cluster.wait_until(lambda: queue(cluster, job, "State") == state, seconds)


def said(folder: Path, job: str) -> list[str]:
    path = folder / f"{job}.out"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("node", NODES)
def test_a_job_on_each_node_finishes_and_is_accounted(cluster: Cluster, tmp_path: Path, node: str) -> None:
    job = submit(cluster, tmp_path, "echo $SLURMD_NODENAME; sleep 2", f"--nodelist={node}", "--gres=gpu:1")
    cluster.wait_until(lambda: accounts(cluster, job, "State", "--allocations") == ["COMPLETED"], 30)
    assert said(tmp_path, job) == [node]
    account, nodes, seconds, resources = accounts(
        cluster, job, "Account,NodeList,ElapsedRaw,AllocTRES", "--allocations"
    )[0].split("|")
    assert (account, nodes) == (ACCOUNT, node)
    assert int(seconds) >= 2
    assert {"cpu=1", "gres/gpu=1"} <= set(resources.split(","))
    memory = accounts(cluster, f"{job}.batch", "MaxRSS")[0]
    assert memory not in ("", "0"), "the memory that the job used was measured"


def test_a_failed_job_is_accounted_as_failed(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "exit 3")
    cluster.wait_until(
        lambda: accounts(cluster, job, "State,ExitCode", "--allocations") == ["FAILED|3:0"], 30
    )


def test_a_gpu_is_given_to_one_job_at_a_time(cluster: Cluster, tmp_path: Path) -> None:
    on_one_node = ("--nodelist=n1", "--time=5")
    all_gpus = submit(cluster, tmp_path, "sleep 300", *on_one_node, f"--gres=gpu:{GPUS_PER_NODE}")
    wait_for_state(cluster, all_gpus, "RUNNING")
    one_gpu = submit(cluster, tmp_path, "echo gpu $CUDA_VISIBLE_DEVICES", *on_one_node, "--gres=gpu:1")
    no_gpu = submit(cluster, tmp_path, "echo ran", "--nodelist=n1", "--time=1")
    wait_for_state(cluster, no_gpu, "COMPLETED")
    assert queue(cluster, one_gpu, "State") == "PENDING", "there was a CPU for it, but no gpu"
    cluster.run("scancel", all_gpus)
    wait_for_state(cluster, one_gpu, "COMPLETED")
    assert said(tmp_path, one_gpu) == ["gpu 0"]


def test_more_gpus_than_a_node_has_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        submit(cluster, tmp_path, "true", f"--gres=gpu:{GPUS_PER_NODE + 1}")


def test_a_signal_reaches_the_job_when_it_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, NOTE_SIGNAL)
    cluster.wait_until(lambda: said(tmp_path, job) == ["started"], 30)
    cluster.run("scancel", "--signal=USR1", "--full", job)
    wait_for_state(cluster, job, "COMPLETED")
    assert said(tmp_path, job)[-1] == "signalled"


def test_a_signal_reaches_the_job_before_its_time_limit(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, NOTE_SIGNAL, "--time=1", "--signal=B:USR1@30")
    wait_for_state(cluster, job, "COMPLETED", TIME_LIMIT_SECONDS)
    assert said(tmp_path, job)[-1] == "signalled"


def test_an_urgent_job_preempts_and_the_other_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    whole_cluster = ("--nodes=2", "--exclusive")
    trap = "trap 'echo told' USR1;"
    job = submit(
        cluster,
        tmp_path,
        f"{trap} {STOP_WHEN_RESTARTED} while true; do sleep 0.2; done",
        *whole_cluster,
        "--partition=main",
        "--signal=B:USR1@1",
    )
    cluster.wait_until(lambda: said(tmp_path, job) == ["start 0 on n1"], 30)
    urgent = submit(cluster, tmp_path, "sleep 1", *whole_cluster, "--partition=urgent")
    wait_for_state(cluster, urgent, "COMPLETED")
    wait_for_state(cluster, job, "COMPLETED", 60)
    assert said(tmp_path, job) == ["start 0 on n1", "told", "start 1 on n1"]
    cluster.wait_until(
        lambda: (
            accounts(cluster, job, "State", "--allocations", "--duplicates") == ["PREEMPTED", "COMPLETED"]
        ),
        30,
    )


def test_a_dead_nodes_job_is_requeued_and_the_node_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, f"{STOP_WHEN_RESTARTED} sleep 300")
    other = submit(cluster, tmp_path, "sleep 300", "--nodelist=n2")
    cluster.wait_until(lambda: said(tmp_path, job) == ["start 0 on n1"], 30)
    wait_for_state(cluster, other, "RUNNING")
    assert len(cluster.processes("n1")) >= 4, "slurmd, slurmstepd, the job's shell and its sleep"

    cluster.kill_node("n1")
    assert cluster.processes("n1") == []
    assert queue(cluster, job, "State") == "RUNNING", "Slurm has not been told yet"
    cluster.run("scontrol", "update", "nodename=n1", "state=down", "reason=died")
    wait_for_state(cluster, job, "COMPLETED", 60)
    assert said(tmp_path, job) == ["start 0 on n1", "start 1 on n2"]
    assert queue(cluster, other, "State") == "RUNNING", "the other node lost nothing"
    assert cluster.node_states()["n1"].startswith("down")

    cluster.revive_node("n1")
    again = submit(cluster, tmp_path, "echo $SLURMD_NODENAME", "--nodelist=n1")
    wait_for_state(cluster, again, "COMPLETED")
    assert said(tmp_path, again) == ["n1"]


def test_nothing_is_left_after_the_end_and_a_second_cluster_is_not_touched(
    cluster: Cluster, tmp_path: Path
) -> None:
    with Cluster(tmp_path / "second") as second:
        job = submit(second, tmp_path, "trap '' TERM; echo started; sleep 300; sleep 300")
        second.wait_until(lambda: said(tmp_path, job) == ["started"], 30)
        processes = second.processes()
        assert len(processes) >= 10
        assert all(in_use(port) for port in second.ports.values())
        assert len(set(second.ports.values()) | set(cluster.ports.values())) == 10
    assert second.processes() == []
    assert not any(is_alive(pid) for pid in processes)
    assert not any(in_use(port) for port in second.ports.values())
    assert cluster.node_states() == dict.fromkeys(NODES, "idle")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_start_that_fails_says_which_daemon_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "SLURMDBD_CONF", "Nonsense=1\n")
    cluster = Cluster(tmp_path / "broken")
    with pytest.raises(RuntimeError, match=r"slurmdbd ended with exit 1(?s:.)*Nonsense"):
        cluster.start()
    assert cluster.processes() == []
    with pytest.raises(ValueError, match="empty folder of its own"):
        cluster.start()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_cluster, "MISSING", ["munge", "slurmdbd"])
    with pytest.raises(RuntimeError, match="apt-get install munge slurmdbd"):
        Cluster(tmp_path).start()


def test_a_folder_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long a path"):
        Cluster(tmp_path / ("long" * 30))


def test_a_command_that_fails_is_an_error_with_its_output(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match=r"scontrol show job 4000(?s:.)*Invalid job id"):
        cluster.run("scontrol", "show", "job", "4000")


def test_a_wait_that_is_too_long_is_an_error_with_the_logs(cluster: Cluster) -> None:
    with pytest.raises(TimeoutError, match=r"not true within 0.1 s(?s:.)*slurmctld.out"):
        cluster.wait_until(lambda: False, 0.1)
