"""`assay run` hands over to Snakemake, `assay verdict` finds its folder, a terminal gets colours."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from assay.cli import COMMANDS, DEFAULT, ROOT, main


class Handed(Exception):
    """In place of the process that Snakemake would take over."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that Snakemake would be run by, without the interpreter."""
    words: list[str] = []

    def take_over(_: str, command: list[str]) -> None:
        words.extend(command[1:])
        raise Handed

    monkeypatch.setattr(os, "execv", take_over)
    return words


def run(*arguments: str) -> None:
    with pytest.raises(Handed):
        main(["run", *arguments])


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_without_arguments_the_default_runs_on_all_cores(handed: list[str]) -> None:
    run()
    assert handed[:3] == ["-P", "-m", "snakemake"]
    assert after(handed, "--configfile") == str(DEFAULT)
    assert after(handed, "--snakefile") == str(ROOT / "Snakefile")
    assert after(handed, "--workflow-profile") == str(ROOT / "profiles" / "default")
    assert after(handed, "--cores") == "all"


def test_snakemakes_arguments_are_its_own(handed: list[str]) -> None:
    run("--cores", "2", "--config", "seeds=3")
    assert after(handed, "--configfile") == str(DEFAULT), "the 2 is no file"
    assert handed[-4:] == ["--cores", "2", "--config", "seeds=3"]
    assert handed.count("--cores") == 1


def test_the_file_stands_first(handed: list[str]) -> None:
    file = str(ROOT / "config" / "experiments" / "digits-optimizers.yaml")
    run(file, "-n")
    assert after(handed, "--configfile") == file
    assert handed[-1] == "-n"


@pytest.mark.parametrize("option", [["-c4"], ["-c", "4"], ["--cores=4"], ["-j2"], ["--profile", "slurm"]])
def test_cores_are_left_to_who_names_them(handed: list[str], option: list[str]) -> None:
    run(*option)
    assert "all" not in handed


def test_another_workflow_profile_replaces_ours(handed: list[str]) -> None:
    run("--workflow-profile", "none")
    assert handed.count("--workflow-profile") == 1


@pytest.mark.parametrize(
    "words",
    [["-n", "e.yaml"], ["--cores", "2", "e.yml"], ["--configfile", "e.yaml"], ["--configfile=e.yaml"]],
)
def test_a_file_among_snakemakes_arguments_is_refused(
    handed: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    assert "write the experiment file first" in capsys.readouterr().err
    assert not handed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("seeds=0", "--config: seeds: 0 seeds"),
        ("training={epochs: -1}", "--config: training.epochs: -1"),
        ("sedes=3", "--config: sedes: unknown key; did you mean `seeds`?"),
        ("seeds=[", "not YAML"),
    ],
)
def test_mistakes_on_the_command_line_are_told_before_snakemake(
    handed: list[str], given: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-n", "--config", "name=other", given, "--cores", "1"]) == 2
    assert words in capsys.readouterr().err
    assert not handed


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "exit codes" in text
    for name, (summary, _, _) in COMMANDS.items():
        assert name in text
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert " ".join(summary.split()) in " ".join(capsys.readouterr().out.split())


def test_the_only_verdict_needs_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verdict"]) == 2
    assert "holds none" in capsys.readouterr().err
    for name in ("a", "b"):
        (tmp_path / "results" / name / "comparison").mkdir(parents=True)
        (tmp_path / "results" / name / "comparison" / "comparison.json").write_text("{}")
    assert main(["verdict"]) == 2
    assert "one of results/a, results/b" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m assay schema | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


def test_a_terminal_gets_colours_and_a_pipe_none() -> None:
    command = [sys.executable, "-m", "assay", "check"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    assert "\x1b[" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    text = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[1mdigits" in text


def test_the_noise_floor_is_a_target_and_its_cost_is_told(
    handed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Handed):
        main(["noise", str(DEFAULT), "--cores", "2", "--config", "name=other"])
    assert after(handed, "--configfile") == str(DEFAULT)
    assert handed[-6:] == ["--cores", "2", "--config", "name=other", "--", "results/other/noise/floor.json"]
    assert "mlp trained again at 6 seeds" in capsys.readouterr().out


def test_a_noise_floor_of_nothing_is_refused(handed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["noise", str(DEFAULT), "--config", "noise={seeds: 0, blocks: 0}"]) == 2
    assert "nothing would be measured" in capsys.readouterr().err
    assert main(["noise", "-n", "e.yaml"]) == 2
    assert "write the experiment file first: assay noise FILE" in capsys.readouterr().err
    assert not handed


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may write into any folder but those of a read-only file system, and a test cannot mount one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).resolve() != tmp_path.resolve())
    assert main(["run", str(DEFAULT)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}: cannot be written to" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
