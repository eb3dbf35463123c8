"""Where nodes meet, as Slurm's variables tell it."""

import pytest

from assay.config.arm import Execution
from assay.training.rendezvous import FIRST_PORT, PORTS, Meeting, hosts, meeting

TWO = Execution(nodes=2)
VARIABLES = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "localhost,other",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10,12]", ["n08", "n09", "n10", "n12"]),
        ("a[1-2],b7,c[3]", ["a1", "a2", "b7", "c3"]),
        ("rack[1-2]n[0-1]", ["rack1n0", "rack1n1", "rack2n0", "rack2n1"]),
        ("gpu-[1-2].site.example", ["gpu-1.site.example", "gpu-2.site.example"]),
        ("n[099-101]", ["n099", "n100", "n101"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert list(hosts(text)) == names


@pytest.mark.parametrize("text", ["", "n[1-2", "n1,", "n 1", "n[]", "n1]"])
def test_what_is_no_host_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a host list"):
        list(hosts(text))


def test_one_node_meets_itself_whatever_slurm_says() -> None:
    assert meeting(Execution(devices=2), VARIABLES) == Meeting(1, 0, "127.0.0.1", 0)


def test_all_nodes_of_a_job_find_one_place_and_other_jobs_another() -> None:
    second = meeting(TWO, VARIABLES)
    assert (second.nodes, second.node, second.host) == (2, 1, "localhost")
    assert FIRST_PORT <= second.port < FIRST_PORT + PORTS
    first = meeting(TWO, VARIABLES | {"SLURM_NODEID": "0"})
    assert (first.host, first.port) == (second.host, second.port)
    others = {meeting(TWO, VARIABLES | {"SLURM_JOB_ID": str(job)}).port for job in range(4712, 4720)}
    assert len(others) == 8 and second.port not in others


def test_a_step_of_fewer_nodes_than_the_job_counts() -> None:
    assert meeting(TWO, VARIABLES | {"SLURM_NNODES": "4", "SLURM_STEP_NUM_NODES": "2"}).nodes == 2


def test_a_name_without_an_address_gives_way_to_the_node_that_called_srun() -> None:
    unknown = VARIABLES | {"SLURM_STEP_NODELIST": "nowhere.invalid,other"}
    assert meeting(TWO, unknown | {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}).host == "127.0.0.1"
    with pytest.raises(ValueError, match=r"nowhere\.invalid, has no address here"):
        meeting(TWO, unknown)


@pytest.mark.parametrize("missing", ["SLURM_NNODES", "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"])
def test_a_variable_that_is_missing_is_named_with_what_to_do(missing: str) -> None:
    variables = {name: value for name, value in VARIABLES.items() if name != missing}
    with pytest.raises(ValueError, match=rf"execution.nodes: 2, but {missing} is not set; .*srun --nodes=2"):
        meeting(TWO, variables)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SLURM_NNODES": "3"}, "this Slurm step has 3 nodes"),
        ({"SLURM_NODEID": "2"}, "SLURM_NODEID is 2"),
        ({"SLURM_NODEID": "x"}, "SLURM_NODEID is 'x'"),
        ({"SLURM_LOCALID": "1"}, "several tasks on this node"),
    ],
)
def test_variables_that_do_not_fit_are_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        meeting(TWO, VARIABLES | change)
