"""The command: what it prints and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from assay import __version__
from assay.cli import DEFAULT, main


def test_check_tells_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(DEFAULT)]) == 0
    output = capsys.readouterr().out
    for words in ("mlp (baseline), cnn", "builtin:cnn", "12 train", "6 profile", "factors   model"):
        assert words in output


def test_check_tells_how_many_devices_a_job_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = yaml.safe_load(DEFAULT.read_text())
    assert main(["check", str(DEFAULT)]) == 0
    assert "devices   1 a job\n" in capsys.readouterr().out
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(experiment | {"execution": {"devices": 4, "nodes": 2}}))
    assert main(["check", str(file)]) == 0
    assert "devices   8 a training (4 on each of 2 nodes); 1 for every other job" in capsys.readouterr().out
    experiment["arms"]["cnn"]["execution"] = {"devices": 2}
    file.write_text(yaml.safe_dump(experiment | {"factors": ["model", "execution.devices"]}, sort_keys=False))
    assert main(["check", str(file)]) == 0
    output = capsys.readouterr().out
    assert "devices   1 a training of mlp; 2 a training of cnn; 1 for every other job" in output


def test_check_full_is_the_resolved_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--full", str(DEFAULT)]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["arms"]["mlp"]["training"]["clip_norm"] is None
    assert resolved["seeds"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("command", ["check", "run"])
def test_mistakes_end_with_2_and_no_traceback(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("name: x\nsedes: 3\n")
    assert main([command, str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{file}:2: sedes: unknown key" in error and "Traceback" not in error


def test_unknown_arguments_end_with_2() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["check", "--fulll"])
    assert stop.value.code == 2


def test_verdict_of_nothing_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_it_starts_without_heavy_imports() -> None:
    program = (
        "import sys; from assay.cli import main\n"
        f"main(['check', {str(DEFAULT)!r}])\n"
        "heavy = {'torch', 'scipy', 'polars', 'matplotlib', 'snakemake'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out
