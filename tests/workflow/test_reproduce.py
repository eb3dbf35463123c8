"""An experiment from its archive alone: checked, run again elsewhere to the same bits, and seen where its code is another."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from project import TINY, Project, assay, copy_project

from assay.archive import zipped
from assay.archive.reproduction import Reproduction
from assay.records import sha256_bytes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reproduced")]

NET = """import torch

def tiny(num_classes, in_channels, image_size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * image_size**2, num_classes))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment with a model of the user's own."""
    project = copy_project(tmp_path_factory.mktemp("own"))
    (project.folder / "nets.py").write_text(NET)
    experiment = TINY | {"profile": {"enabled": False}, "metrics": ["accuracy"], "training": {"epochs": 1}}
    experiment["arms"] = {
        "mlp": {"model": {"source": "builtin:mlp"}},
        "own": {"model": {"source": "nets:tiny"}},
    }
    project.write(experiment)
    project.run()
    return project


def archive_of(project: Project) -> Path:
    return project.results / "archive" / "tiny.crate.zip"


def test_an_archive_is_checked_and_comes_out_to_the_bit_elsewhere(own: Project, tmp_path: Path) -> None:
    path = tmp_path / "theirs.crate.zip"
    path.write_bytes(archive_of(own).read_bytes())
    checked = assay(tmp_path, "verify", path.name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = assay(tmp_path, "reproduce", path.name, "--into", "again", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reproduced: 4 of 4 runs came out to the bit" in done.stdout
    found = Reproduction.read(tmp_path / "again" / "reproduction.json")
    assert found.word == "identical"
    assert all(run.weights and run.batches and run.metrics for run in found.runs)
    checked = assay(tmp_path, "verify", "again/results/tiny/archive/tiny.crate.zip")
    assert checked.returncode == 0, "what it leaves is archived and holds in its turn" + checked.stdout


def test_a_changed_line_of_code_is_another_outcome(own: Project, tmp_path: Path) -> None:
    """Though its checksum was made anew."""
    with ZipFile(archive_of(own)) as file:
        content: dict[str, bytes | Path] = {name: file.read(name) for name in file.namelist()}
    place = "experiment/nets.py"
    content[place] = NET.replace(
        "in_channels * image_size**2, num_classes)", "in_channels * image_size**2, num_classes, bias=False)"
    ).encode()
    sums = {name: sha256_bytes(one) for name, one in content.items() if isinstance(one, bytes)}
    del sums["SHA256SUMS"]
    content["SHA256SUMS"] = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    path = tmp_path / "changed.crate.zip"
    zipped.write(path, content)
    checked = assay(tmp_path, "verify", path.name)
    assert checked.returncode == 1
    assert (
        "runs/own/seed-0/train/record.json: was made by another nets.py than lies in experiment/"
        in checked.stdout
    )
    done = assay(tmp_path, "reproduce", path.name, "--into", "again", "--cores", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "warning: results/tiny/runs/own/seed-0/evaluate/record.json: was made by another" in done.stderr
    assert "own, seed 0: other weights, metrics" in done.stdout
    assert "Not reproduced: 2 of 4 runs came out to the bit, where all had to" in done.stdout


def test_a_flipped_bit_and_a_cut_off_file_are_not_run(own: Project, tmp_path: Path) -> None:
    """Wherever the bit lies: in a file's bytes, in its header's time that nobody reads, in the digest at the end."""
    content = archive_of(own).read_bytes()
    with ZipFile(archive_of(own)) as file:
        header = file.infolist()[1].header_offset
        largest = max(file.infolist(), key=lambda info: info.compress_size)
    places = {
        "bytes": largest.header_offset + 30 + len(largest.filename) + largest.compress_size // 2,
        "time": header + 10,
        "digest": len(content) - 1,
    }
    (tmp_path / "cut.crate.zip").write_bytes(content[:-5000])
    for name, place in places.items():
        flipped = bytearray(content)
        flipped[place] ^= 1
        (tmp_path / f"{name}.crate.zip").write_bytes(flipped)
    for name in ("cut", *places):
        assert assay(tmp_path, "verify", f"{name}.crate.zip").returncode == 1
        refused = assay(tmp_path, "reproduce", f"{name}.crate.zip")
        assert refused.returncode == 2 and "crate.zip: " in refused.stderr
    assert len(list(tmp_path.glob("*crate*"))) == 4, "nothing was laid out"
