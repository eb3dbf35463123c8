"""`assay run` of an experiment with looks: which seeds each workflow gets, and when it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.cli import main
from assay.config.load import load
from assay.looks import run_by_looks, with_seeds

SOURCE = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parent

EXPERIMENT = """
name: test
factors: [model]
arms:
  a: {model: {source: "builtin:mlp"}}
  b: {model: {source: "builtin:cnn"}}
data: {source: digits}
seeds: [3, 1, 4, 5, 9, 2, 6, 8, 7, 0, 10, 11]
metrics: [accuracy]
profile: {enabled: false}
comparison: {looks: [6, 8, 12], spending: pocock}
"""

WORKFLOW = '''
"""In place of Snakemake: the records of the seeds that it is told, and the real comparison of them."""
import json, sys
from pathlib import Path

import yaml

sys.path[:0] = [SOURCE, TESTS]
from assay.comparison.run import compare
from assay.config.load import load
from comparison.conftest import evaluated, record

file, gain, log, *options = sys.argv[1:]
told = {}
if "--config" in options:
    words = options[options.index("--config") + 1 :]
    told = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in words if "=" in word)}
experiment = load(Path(file), overrides=told)
with open(log, "a") as out:
    out.write(json.dumps(experiment.seeds) + "\\n")
results = Path("results") / experiment.name
results.mkdir(parents=True, exist_ok=True)
(results / "experiment.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))
for seed in experiment.seeds:
    for arm in experiment.arms:
        value = 0.9 + 0.001 * (seed % 3) + (float(gain) if arm == "b" else 0.0002 * (seed % 2 - 0.5) * seed)
        folder = results / f"runs/{arm}/seed-{seed}"
        record(experiment, "train", arm, seed, {}).write(folder / "train" / "record.json")
        evaluated(experiment, arm, seed, {"accuracy": round(value, 4)}, folder).write(folder / "evaluate" / "record.json")
compare(experiment_file=results / "experiment.yaml", results=results, output=results / "comparison")
'''


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.log = folder, folder / "e.yaml", folder / "seen.jsonl"
        self.script = folder / "workflow.py"
        self.file.write_text(EXPERIMENT)
        words = {"SOURCE": repr(str(SOURCE)), "TESTS": repr(str(TESTS))}
        self.script.write_text(WORKFLOW.replace("[SOURCE, TESTS]", f"[{words['SOURCE']}, {words['TESTS']}]"))

    def run(self, gain: float, *options: str) -> int:
        def command(words: list[str]) -> list[str]:
            return [sys.executable, str(self.script), str(self.file), str(gain), str(self.log), *words]

        return run_by_looks(self.file, load(self.file), list(options), command)

    @property
    def seen(self) -> list[int]:
        """How many seeds each workflow got."""
        return [len(json.loads(line)) for line in self.log.read_text().splitlines()]

    def comparison(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.folder / "results/test/comparison/comparison.json").read_text()
        )
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def test_it_ends_at_the_look_that_decides_and_stays_there(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run(0.05) == 0
    # Six of twelve seeds may use 0.031 of the level, which is below the 1/32 that six seeds can show.
    assert project.seen == [6, 8]
    assert json.loads(project.log.read_text().splitlines()[0]) == [3, 1, 4, 5, 9, 2], (
        "in the order of the file"
    )
    assert project.comparison()["sequential"]["stopped_early"]
    assert "the first metric is decided, no further seeds are run" in capsys.readouterr().out
    assert project.run(0.05) == 0
    assert project.seen == [6, 8, 8], "what is decided stays so, and no earlier look is made again"
    # Other looks are another experiment: it begins anew.
    project.file.write_text(EXPERIMENT.replace("[6, 8, 12]", "[7, 12]"))
    assert project.run(0.05) == 0
    assert project.seen[3:] == [7]


def test_what_stays_open_takes_all_looks(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run(0.0) == 0
    assert project.seen == [6, 8, 12]
    assert not project.comparison()["sequential"]["stopped_early"]
    assert "this was the last look" in capsys.readouterr().out


def test_a_workflow_that_fails_ends_it(project: Project) -> None:
    project.script.write_text("raise SystemExit(7)")
    assert project.run(0.0) == 7


def test_a_dry_run_is_one(project: Project) -> None:
    project.run(0.0, "--dry-run")
    assert project.seen == [12]


def test_a_request_to_end_reaches_the_workflow(project: Project) -> None:
    project.script.write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    code = (
        f"import sys; sys.path[:0] = [{str(SOURCE)!r}, {str(TESTS)!r}]\n"
        "from pathlib import Path\nfrom test_looks import Project\n"
        "project = Project.__new__(Project)\nproject.file = Path('e.yaml')\nproject.log = Path('seen')\n"
        "project.script = Path('workflow.py')\nsys.exit(project.run(0.0))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "begun":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=500) == 128 + signal.SIGTERM, "it ended on request, not by itself"


def test_seeds_join_the_users_own_config() -> None:
    assert with_seeds(["--cores", "2"], [0, 1]) == ["--cores", "2", "--config", "seeds=[0,1]"]
    assert with_seeds(["--config", "name=x", "-n"], [0]) == ["--config", "seeds=[0]", "name=x", "-n"]
    assert with_seeds(["--config=name=x"], [0]) == ["--config", "seeds=[0]", "name=x"]
    assert with_seeds(["--", "target"], [0]) == ["--config", "seeds=[0]", "--", "target"]


def test_the_last_look_is_all_seeds(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.file.write_text(EXPERIMENT.replace("[6, 8, 12]", "[6, 12, 20]"))
    assert main(["run", str(project.file)]) == 2
    assert "the last look is after 20 seeds, and there are 12" in capsys.readouterr().err


def test_a_noise_floor_takes_no_seeds_that_the_first_look_has_not(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.file.write_text(EXPERIMENT + "noise: {enabled: true, seeds: 8, blocks: 0}\n")
    assert main(["check", str(project.file)]) == 2
    assert "noise.seeds: 8 of 6 seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ("[6, 8]", "12 seeds are none of the looks"),
        ("[12, 6]", "write them ascending and once each: [6, 12]"),
        ("[6, 6, 12]", "write them ascending and once each: [6, 12]"),
        ("[2, 12]", "greater than or equal to 3"),
        ("[12]", "at least 2 items"),
        ("yes", "looks"),
    ],
)
def test_looks_that_are_none(
    project: Project, looks: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.file.write_text(EXPERIMENT.replace("[6, 8, 12]", looks))
    assert main(["check", str(project.file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "comparison" in error


def test_a_look_at_which_nothing_can_be_shown_is_told(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(EXPERIMENT)
    content["comparison"] = {"looks": [5, 9, 12]}
    content["data"]["path"] = None
    project.file.write_text(yaml.safe_dump(content))
    assert main(["check", str(project.file)]) == 0
    printed = capsys.readouterr().out
    assert "looks     after 5, 9, 12 seeds (O'Brien-Fleming type spending)" in printed
    assert "after 5 seeds no test can be significant; look later" in printed
