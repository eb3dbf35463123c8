"""What takes long to make, made once: a registry with a base, and images from it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_registry import MISSING, Registry, base_layout
from slurm_cluster import MISSING as MISSING_FOR_SLURM
from slurm_cluster import Cluster

from assay.config.bases import Base
from assay.image.build import build
from assay.image.recipe import CONTAINERS, Place, Recipe

FAST = "-comp zstd -Xcompression-level 1"
"""How tests pack images: in a fifth of the time, a little larger."""
SLURM_CONF = Path("/etc/slurm/slurm.conf")
"""Where Slurm's programs look when no variable tells them: Snakemake's executor drops all of Slurm's variables."""
SMALL = ("idna", "typing-extensions")
MADE_ONCE = {"base", "cluster"}
"""What the tests of one worker share: images come from the base, and a machine has one Slurm."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers run (`--dist loadgroup`): whatever stands on an image or on Slurm with one, else a module with one."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            shared = MADE_ONCE.intersection(getattr(item, "fixturenames", ()))
            item.add_marker(pytest.mark.xdist_group("image" if shared else item.path.stem))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """A base by its digest, in a registry that runs as long as the tests do."""
    if MISSING:
        pytest.skip(f"install {' '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch, Registry(folder) as registry:
        patch.setenv("APPTAINER_NOHTTPS", "1")
        patch.setenv("APPTAINER_MKSQUASHFS_ARGS", FAST)
        layout = base_layout(folder, "1")
        digest = registry.push(layout, "assay-base", "1")
        shutil.rmtree(layout)
        yield Base(f"{registry.address}/assay-base", "1", digest)


@pytest.fixture(scope="session")
def small_recipe(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The real definition with two small packages: an image in seconds."""
    containers = tmp_path_factory.mktemp("small") / "containers"
    shutil.copytree(CONTAINERS, containers)
    locked = (CONTAINERS / "requirements.txt").read_text().replace("\\\n", "\0").splitlines()
    kept = [line for line in locked if line.split("==")[0] in SMALL]
    assert len(kept) == len(SMALL)
    (containers / "requirements.txt").write_text("\n".join(kept).replace("\0", "\\\n") + "\n")
    (containers / "torch.txt").write_text("")
    (containers / "check.py").write_text("import idna, typing_extensions\n")
    return Recipe(base, containers)


@pytest.fixture(scope="session")
def small_image(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return build(small_recipe, tmp_path_factory.mktemp("small-images"))


@pytest.fixture(scope="session")
def images(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole image, built once."""
    folder = tmp_path_factory.mktemp("images")
    build(Recipe(base), folder)
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes that Snakemake's executor finds; they have more CPUs than this machine."""
    if MISSING_FOR_SLURM:
        pytest.skip(f"install {' '.join(MISSING_FOR_SLURM)}")
    if os.getuid() != 0 or SLURM_CONF.exists():
        pytest.skip(f"{SLURM_CONF} is not ours to write: no root, or a Slurm of this machine's own")
    SLURM_CONF.parent.mkdir(exist_ok=True)
    with Cluster(tmp_path_factory.mktemp("slurm"), cpus=20, memory_mb=32000) as cluster:
        SLURM_CONF.symlink_to(cluster.environment["SLURM_CONF"])
        try:
            yield cluster
        finally:
            SLURM_CONF.unlink()
