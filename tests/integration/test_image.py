"""Images built by the real Apptainer from a real registry: the same twice, refused when changed."""

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

from assay.config.bases import Base
from assay.image import apptainer
from assay.image.build import build, looked_at
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import Place, Recipe
from assay.image.verify import verify_content, verify_file, verify_packages
from assay.records import sha256_file
from assay.registry import digest_of

pytestmark = pytest.mark.integration
SOURCE = Path(__file__).parents[2] / "src"


def test_a_registry_is_asked_for_the_digest_behind_a_tag(base: Base) -> None:
    assert digest_of(base.name, "1") == base.digest
    assert digest_of(base.name, "2") is None


def test_the_lock_tells_what_is_in_the_image(small_image: Place, base: Base) -> None:
    lock = verify_file(small_image)
    assert (lock.base_name, lock.base_tag, lock.base_digest) == (base.name, "1", base.digest)
    assert {"idna", "typing-extensions"} <= lock.packages.keys()
    assert "openssh-server" in lock.system_packages
    assert lock.content_files > 1000
    verify_packages(small_image, lock)
    verify_content(small_image, lock)
    labels = apptainer.output(small_image.sif, "cat", "/.singularity.d/labels.json")
    assert base.digest in labels and "org.assay.locks.sha256" in labels


def test_two_builds_have_the_same_content(small_image: Place, small_recipe: Recipe, tmp_path: Path) -> None:
    again = build(small_recipe, tmp_path)
    first, second = ImageLock.read(small_image.lock), ImageLock.read(again.lock)
    assert second.content_sha256 == first.content_sha256
    assert second.packages == first.packages


def test_two_builders_at_once_make_one_image(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "build.py").write_text(
        "import sys; from pathlib import Path\n"
        "from assay.config.bases import own_base; from assay.image.build import build\n"
        "from assay.image.recipe import Recipe\n"
        "build(Recipe(own_base(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))\n"
    )
    root = tmp_path / "images"
    words = [small_recipe.base.reference, small_recipe.containers, root]
    command = [sys.executable, tmp_path / "build.py", *words]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [builder.communicate(timeout=600)[1] for builder in both]
    assert [builder.returncode for builder in both] == [0, 0], said
    assert sum("waiting for it" in text for text in said) == 1
    assert [path.name for path in root.iterdir() if path.is_dir()] == [small_recipe.name]


@pytest.fixture
def copied(small_image: Place, tmp_path: Path) -> Place:
    """An image that a test may damage."""
    shutil.copytree(small_image.folder, tmp_path / small_image.name)
    return Place(tmp_path / small_image.name, small_image.name)


def test_an_image_with_another_package_is_refused(
    copied: Place, small_recipe: Recipe, tmp_path: Path
) -> None:
    """Someone swaps the file for one with another package, and fits the hash in the lock."""
    version = ImageLock.read(copied.lock).packages["idna"]
    containers = tmp_path / "containers"
    shutil.copytree(small_recipe.containers, containers)
    with (containers / "install.sh").open("a") as script:
        script.write(
            f'sed -i "s/^Version: {version}/Version: 0.0.1/" "$environment"/lib/*/*/idna-*/METADATA\n'
        )
    shutil.copy(build(Recipe(small_recipe.base, containers), tmp_path / "other").sif, copied.sif)
    with pytest.raises(ImageError, match=r"bytes, its lock says|was changed"):
        verify_file(copied)
    lock = ImageLock.read(copied.lock)
    lock.sif_sha256, lock.sif_bytes = sha256_file(copied.sif), copied.sif.stat().st_size
    lock.write(copied.lock)
    assert verify_file(copied) == lock
    with pytest.raises(ImageError, match=rf"idna is 0\.0\.1, the lock says {version}"):
        verify_packages(copied, lock)
    with pytest.raises(ImageError, match="its files hash to"):
        verify_content(copied, lock)


def test_a_failed_build_leaves_nothing(small_recipe: Recipe, tmp_path: Path) -> None:
    containers = tmp_path / "containers"
    shutil.copytree(small_recipe.containers, containers)
    (containers / "check.py").write_text("raise SystemExit('this image is not fit')\n")
    with pytest.raises(ImageError, match="apptainer build ended with status"):
        build(Recipe(small_recipe.base, containers), tmp_path / "images")
    assert [path for path in (tmp_path / "images").iterdir() if path.is_dir()] == []


def test_a_digest_that_the_registry_does_not_have_is_refused(small_recipe: Recipe, tmp_path: Path) -> None:
    other = Base(small_recipe.base.name, None, "sha256:" + "0" * 64)
    with pytest.raises(ImageError):
        build(Recipe(other, small_recipe.containers), tmp_path)


USER = f"assay-ssh-{os.getpid()}"
"""Of this run alone: another may be going on, or have been killed before it removed its user."""


@pytest.fixture
def somebody(tmp_path: Path) -> Iterator[list[str]]:
    """What to put before a command so that a user without rights runs it: oneself, unless that is root."""
    if os.geteuid() != 0:
        yield []
        return
    subprocess.run(["useradd", "--shell", "/bin/sh", "--home-dir", tmp_path, USER], check=True)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    shutil.chown(tmp_path, USER, USER)
    yield ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--reset-env"]
    subprocess.run(["userdel", USER], check=True)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def server(small_image: Place, key: Path, somebody: list[str], tmp_path: Path) -> Iterator[int]:
    """OpenSSH in the image; gives its port."""
    for folder in (small_image.folder, small_image.folder.parent):
        folder.chmod(0o755)
    port = free_port()
    log = (tmp_path / "ssh.log").open("w")
    command = [*somebody, "apptainer", "run", "--bind", str(tmp_path), "--app", "ssh", str(small_image.sif)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--keys", f"{key}.pub"], stdout=log, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 120
    while "listening" not in (text := (tmp_path / "ssh.log").read_text()):
        if time.monotonic() > end or process.poll() is not None:
            raise AssertionError(text)
        time.sleep(0.2)
    yield port
    process.terminate()
    process.wait(timeout=120)


def ssh(port: int, *options: str) -> "subprocess.CompletedProcess[str]":
    user = USER if os.geteuid() == 0 else getpass.getuser()
    common = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    command = ["ssh", "-F", "none", "-p", str(port), *common, *options, f"{user}@127.0.0.1"]
    return subprocess.run(
        [*command, "python3 -c 'import idna; print(idna)'"], capture_output=True, text=True, timeout=300
    )


@pytest.mark.skipif(shutil.which("ssh") is None, reason="install openssh-client")
def test_ssh_into_the_image_with_a_key_and_not_otherwise(server: int, key: Path, tmp_path: Path) -> None:
    entered = ssh(server, "-i", str(key))
    assert entered.returncode == 0, entered.stderr + (tmp_path / "ssh.log").read_text()
    assert "/opt/assay/environment/" in entered.stdout
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    assert "Permission denied (publickey)" in ssh(server, "-i", str(other), "-o", "IdentitiesOnly=yes").stderr
    password = ssh(server, "-o", "PreferredAuthentications=password", "-o", "PubkeyAuthentication=no")
    assert "Permission denied (publickey)" in password.stderr, "no password is asked for"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="install openssh-client")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "22"], "take one above 1024"),
        (["--port", "many"], "is no number"),
        (["--keys", "/nowhere"], "name a file with your public keys"),
        (["--password", "x"], "unknown argument --password"),
    ],
)
def test_ssh_refuses_what_would_not_be_safe(words: list[str], said: str, small_image: Place) -> None:
    command = ["apptainer", "run", "--app", "ssh", str(small_image.sif), *words]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 2 and said in refused.stderr


def test_looking_at_an_image_that_is_none_is_refused(tmp_path: Path, small_recipe: Recipe) -> None:
    (tmp_path / "x.sif").write_bytes(b"no image")
    with pytest.raises(ImageError, match="cannot run python3"):
        looked_at(tmp_path / "x.sif", "packages", small_recipe.containers)
