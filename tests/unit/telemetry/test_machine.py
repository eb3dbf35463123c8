"""The CPU side, on this machine and on ones made of files."""

import os
from pathlib import Path

from assay.telemetry.machine import Machine


def put(root: Path, files: dict[str, object]) -> Machine:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return Machine(os.getpid(), str(root))


def test_this_machine_tells_what_it_can():
    machine = Machine(os.getpid())
    before = machine.read()
    assert sum(i * i for i in range(3_000_000)) > 0
    after = machine.read()
    assert before["load"] is not None
    if before["busy_s"] is not None:
        assert after["busy_s"] > before["busy_s"] and after["waited_s"] >= before["waited_s"]
    assert set(before) == {
        *("load", "cpu_mhz", "temperature_c", "steal_s", "throttled_s"),
        *("busy_s", "waited_s", "rapl_uj"),
    }


def test_a_machine_that_tells_nothing_is_null(tmp_path):
    machine = put(tmp_path, {})
    assert set(machine.read().values()) == {None}
    assert {note.partition(":")[0] for note in machine.notes} == {
        *("cpu_mhz", "temperature_c", "throttled_s", "rapl_uj")
    }


def test_clocks_are_averaged_and_the_hottest_sensor_counts(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    clocks = {f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq": 2_000_000 for cpu in cpus}
    machine = put(
        tmp_path,
        clocks
        | {
            "sys/class/thermal/thermal_zone0/temp": 41_000,
            "sys/class/thermal/thermal_zone1/temp": 58_500,
            "sys/class/thermal/cooling_device0/temp": 99_000,
        },
    )
    assert (machine.read()["cpu_mhz"], machine.read()["temperature_c"]) == (2000, 58.5)
    chips = {
        "sys/class/hwmon/hwmon0/name": "nvme",
        "sys/class/hwmon/hwmon0/temp1_input": 80_000,
        "sys/class/hwmon/hwmon1/name": "coretemp",
        "sys/class/hwmon/hwmon1/temp1_input": 61_000,
        "sys/class/hwmon/hwmon1/temp2_input": 66_000,
    }
    assert put(tmp_path, chips).read()["temperature_c"] == 66, "the CPU's own sensor, not the disk's"


def test_the_jobs_own_group_is_asked_how_long_it_was_held_back(tmp_path):
    pid = os.getpid()
    own = {
        f"proc/{pid}/cgroup": "0::/slurm/job_7/step_0",
        "sys/fs/cgroup/cpu.stat": "usage_usec 9\nthrottled_usec 9000000",
        "sys/fs/cgroup/slurm/job_7/step_0/cpu.stat": "usage_usec 5\nthrottled_usec 1500000",
    }
    assert put(tmp_path / "own", own).read()["throttled_s"] == 1.5
    del own["sys/fs/cgroup/slurm/job_7/step_0/cpu.stat"]  # in a container the path is the host's
    assert put(tmp_path / "root", own).read()["throttled_s"] == 9
    old = {
        f"proc/{pid}/cgroup": "4:memory:/a\n3:cpu,cpuacct:/docker/b",
        "sys/fs/cgroup/cpu/docker/b/cpu.stat": "nr_throttled 3\nthrottled_time 2500000000",
    }
    assert put(tmp_path / "v1", old).read()["throttled_s"] == 2.5


def test_steal_and_the_wait_for_a_cpu(tmp_path):
    machine = put(
        tmp_path,
        {
            "proc/stat": "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1 2 3 4 5 6 7 9 0 0",
            f"proc/{os.getpid()}/schedstat": "3000000000 500000000 77",
        },
    )
    found = machine.read()
    assert found["steal_s"] == 250 / os.sysconf("SC_CLK_TCK")
    assert (found["busy_s"], found["waited_s"]) == (3, 0.5)


def test_energy_is_read_by_package_and_only_where_it_may_be(tmp_path):
    base = "sys/class/powercap"
    machine = put(
        tmp_path,
        {
            f"{base}/intel-rapl:0/energy_uj": 123,
            f"{base}/intel-rapl:0/max_energy_range_uj": 262_143_328_850,
            f"{base}/intel-rapl:0:0/energy_uj": 77,
            f"{base}/intel-rapl:1/name": "package-1",
        },
    )
    package = "/sys/class/powercap/intel-rapl:0"
    assert machine.read()["rapl_uj"] == {package: 123}, (
        "parts of a package, and counters of root, are left out"
    )
    assert machine.describe() == {"rapl": {package: 262_143_328_850}}
