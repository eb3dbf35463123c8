"""Recipe, lock and verification of an image, as far as they need no Apptainer."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config.bases import BASES, Base, own_base, parse
from assay.image.build import _publish
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import CONTAINERS, Place, Recipe, place
from assay.image.running import arguments, confine
from assay.image.verify import differences, verify_file
from assay.records import now, sha256_file

DIGEST = "sha256:" + "a" * 64
OWN = Base("registry.example/team/torch", None, DIGEST)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (f"docker://a/b@{DIGEST}", ("a/b", None, DIGEST)),
        (f"docker://a/b:1.0@{DIGEST}", ("a/b", "1.0", DIGEST)),
        ("docker://127.0.0.1:5000/a/b:1.0", ("127.0.0.1:5000/a/b", "1.0", None)),
        ("docker://127.0.0.1:5000/a", ("127.0.0.1:5000/a", None, None)),
    ],
)
def test_a_reference_is_taken_apart(reference: str, expected: tuple[str, str | None, str | None]) -> None:
    assert parse(reference) == expected


@pytest.mark.parametrize(
    "reference", ["a/b:1", "docker://", f"docker://a@{DIGEST}0", "docker://a b", "docker://a;b"]
)
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="write docker://NAME@sha256:"):
        parse(reference)


def test_a_tag_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no digest: a tag may mean another image tomorrow"):
        own_base("docker://a/b:latest")


def test_every_named_base_has_a_digest_and_none_is_named_twice() -> None:
    assert all(own_base(base.reference) == base for base in BASES.values())
    assert len({base.digest for base in BASES.values()}) == len(BASES)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    shutil.copytree(CONTAINERS, tmp_path / "containers")
    return Recipe(OWN, tmp_path / "containers")


def test_the_name_changes_with_whatever_decides_the_content(recipe: Recipe) -> None:
    names = {recipe.name, Recipe(Base(OWN.name, None, "sha256:" + "b" * 64), recipe.containers).name}
    for path in recipe.files:
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        names.add(recipe.name)
        path.write_bytes(before)
    assert len(names) == 2 + len(recipe.files)
    assert recipe.name in names and recipe.name.startswith("assay-torch-aaaaaaaaaaaa-")


def test_a_tag_is_for_people_alone(recipe: Recipe) -> None:
    assert Recipe(Base(OWN.name, "2.9", DIGEST), recipe.containers).sha256 == recipe.sha256


@pytest.fixture
def built(tmp_path: Path, recipe: Recipe) -> Place:
    """An image's folder as a build leaves it, with other bytes for a file system."""
    found = place(recipe, tmp_path / "images")
    found.folder.mkdir(parents=True)
    found.sif.write_bytes(b"squashed" * 1000)
    ImageLock(
        name=recipe.name,
        base_name=OWN.name,
        base_tag=None,
        base_digest=DIGEST,
        recipe_sha256=recipe.sha256,
        locks_sha256={},
        sif_sha256=sha256_file(found.sif),
        sif_bytes=found.sif.stat().st_size,
        content_sha256="c",
        content_files=1,
        python="3.11.7",
        packages={"torch": "2.9.1"},
        system_packages={},
        built=now(),
        built_with="apptainer version 1.4.5",
    ).write(found.lock)
    return found


def test_what_was_built_is_accepted(built: Place) -> None:
    assert verify_file(built).packages == {"torch": "2.9.1"}


def _flip(built: Place) -> None:
    content = bytearray(built.sif.read_bytes())
    content[4000] ^= 1
    built.sif.write_bytes(content)


def _swap_lock(built: Place) -> None:
    built.lock.write_text(built.lock.read_text().replace(built.name, "assay-other"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda built: built.sif.write_bytes(built.sif.read_bytes()[:-1]),
            "has 7,999 bytes, its lock says 8,000",
        ),
        (_flip, "was changed: its SHA-256 is"),
        (_swap_lock, "is the lock of assay-other"),
        (lambda built: built.sif.unlink(), "is gone, its lock is there"),
        (lambda built: built.lock.unlink(), "no such image lock"),
        (lambda built: built.lock.write_text("{"), "remove the folder and build the image again"),
    ],
)
def test_what_was_changed_is_refused(damage: Callable[[Place], None], said: str, built: Place) -> None:
    damage(built)
    with pytest.raises(ImageError, match=said):
        verify_file(built)


def test_packages_that_differ_are_named() -> None:
    found = differences({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    assert found == ["b is 2, the lock says 1", "c 1 is missing", "d 1 is not in the lock"]


def test_of_two_builders_the_first_wins_and_the_second_throws_its_own_away(
    built: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "images" / ".second"
    second.mkdir()
    (second / built.sif.name).write_bytes(b"another")
    before = built.sif.read_bytes()
    _publish(second, built)
    assert built.sif.read_bytes() == before
    assert "another builder was faster" in capsys.readouterr().err


def test_an_empty_folder_is_no_image_and_gives_way(tmp_path: Path) -> None:
    """Snakemake makes the folders of outputs before it runs a job."""
    target = Place(tmp_path / "x", "x")
    target.folder.mkdir()
    work = tmp_path / ".work"
    work.mkdir()
    (work / "x.sif").touch()
    _publish(work, target)
    assert target.sif.exists()


def test_a_job_gets_what_it_needs_and_nothing_that_is_injected() -> None:
    environment = {
        "APPTAINERENV_SECRET": "x",
        "SINGULARITYENV_PYTHONPATH": "/evil",
        "PYTHONPATH": "/host",
        "CUDA_VISIBLE_DEVICES": "1",
        "SLURM_JOB_ID": "7",
        "OMP_NUM_THREADS": "2",
        "HOME": "/home/me",
    }
    confine(environment)
    handed = {
        name: value
        for name, value in environment.items()
        if name.startswith(("APPTAINERENV_", "SINGULARITYENV_"))
    }
    assert handed == {
        "APPTAINERENV_CUDA_VISIBLE_DEVICES": "1",
        "APPTAINERENV_SLURM_JOB_ID": "7",
        "APPTAINERENV_OMP_NUM_THREADS": "2",
    }


def test_the_driver_comes_in_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    other = tmp_path.parent / f"{tmp_path.name} other"
    (other / "deeper").mkdir(parents=True)
    binds = [other / "deeper", other, tmp_path / "inside", tmp_path / "nowhere"]
    assert arguments("--writable-tmpfs", binds, gpu=True) == (
        f"--writable-tmpfs --cleanenv --no-home --no-eval --nv --bind /sys/fs/cgroup --bind '{other}'"
    )
    assert "--nv" not in arguments("", [], gpu=False)
