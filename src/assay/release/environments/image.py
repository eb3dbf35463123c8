"""A bundle's image: that of its run, with what a server needs beside it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.config.bases import Base
from assay.image import apptainer, index
from assay.image.build import build as build_base
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import Place as BasePlace
from assay.image.recipe import Recipe, images
from assay.image.running import INJECTED, arguments, confine
from assay.image.verify import verify_file
from assay.release.bundle.manifest import IMAGE_LOCK, REQUIREMENTS
from assay.release.bundle.read import Bundle
from assay.release.environments.place import Place, PlaceError
from assay.release.registry.history import locked

_PACKAGES = "packages"
_INSTALL = (
    "if [ -f /srv/index.sh ]; then . /srv/index.sh; fi; exec python3 -m pip --quiet --disable-pip-version-check install "
    '--root-user-action ignore --no-cache-dir --require-hashes --no-deps --target "$0/packages" -r "$0/requirements.txt"'
)
_KEEPER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
first = os.posix_spawn(sys.executable, [sys.executable, "-P", *sys.argv[1:]], os.environ, setsigmask=[])
status = None
def pass_on(number, _):
    try:
        status is None and os.kill(first, number)
    except ProcessLookupError:  # reaped a moment ago
        pass
signal.signal(signal.SIGTERM, pass_on)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
while True:
    try:
        child, ended = os.wait()
    except ChildProcessError:
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    status = ended if child == first else status
"""
"""What runs first in the image, until all that it started has ended, whoever's child it was. An ordinary user's image is mounted by a
process that ends with the first: gunicorn's workers, which outlive their master, would lose the files under their feet."""


def make_image(place: Place, bundle: Bundle) -> None:
    """The run's image, and beside it what of the bundle's lock it lacks, installed by its own Python.

    Under its name only once it is whole. The image stays where images are: what stands on it is a link.
    Raises: PlaceError, ImageError.
    """
    if place.sif.exists():
        return
    base = _base(bundle)
    with locked(place.folder):
        if place.sif.exists():
            return
        work = Path(tempfile.mkdtemp(dir=place.root, prefix=f".{place.name}."))
        try:
            work.chmod(0o755)
            (work / _PACKAGES).mkdir()
            text = (bundle.folder / REQUIREMENTS).read_text(encoding="utf-8")
            lacking = lacks(text, ImageLock.read(bundle.folder / IMAGE_LOCK).packages)
            (work / "requirements.txt").write_text(lacking, encoding="utf-8")
            if lacking:
                _install(base.sif, work)
            (work / f"{place.name}.sif").symlink_to(base.sif.absolute())
            work.rename(place.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def lacks(requirements: str, packages: Mapping[str, str]) -> str:
    """The entries of a lock file, hashes and all, whose version is not among `packages` (version by name).

    An image that has the locked PyTorch has what that needs of NVIDIA's too, by whatever way it came there.
    """
    known = {_plain(name): version.partition("+")[0] for name, version in packages.items()}
    entries = [entry for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", requirements) if "==" in entry]
    pairs = [(entry, *re.match(r"([^=\s]+)==([^\s;]+)", entry).groups()) for entry in entries]  # type: ignore[union-attr]
    has_torch = any(name == "torch" and known.get("torch") == version for _, name, version in pairs)

    def there(name: str, version: str) -> bool:
        of_torch = name == "triton" or name.startswith("nvidia-")
        return known.get(_plain(name)) == version or (has_torch and of_torch)

    return "".join(entry for entry, name, version in pairs if not there(name, version))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _install(sif: Path, work: Path) -> None:
    with index.mounted() as bind:
        command = [apptainer.program(), "--silent", "exec", "--cleanenv", "--no-home", "--no-eval"]
        command += ["--bind", f"{work}:{work}", "--bind", bind, str(sif), "sh", "-c", _INSTALL, str(work)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(INJECTED)}
        if subprocess.run(command, stdout=2, cwd="/", env=environment).returncode != 0:
            raise PlaceError(f"{sif}: what a server needs could not be installed beside it; see above")


def _base(bundle: Bundle) -> BasePlace:
    """The run's image: the very file, or built anew from the same recipe. Raises: PlaceError, ImageError."""
    path = bundle.folder / IMAGE_LOCK
    lock = ImageLock.read(path)
    for known in sorted(images().glob("*/lock.json")):
        found = BasePlace(known.parent, known.parent.name)
        if found.exists() and ImageLock.read(known).sif_sha256 == lock.sif_sha256:
            verify_file(found)
            return found
    recipe = Recipe(Base(lock.base_name, lock.base_tag, lock.base_digest))
    if recipe.sha256 != lock.recipe_sha256:
        raise PlaceError(
            f"{path}: the image {lock.name} is not in {images()}, and this checkout would build another one from "
            f"{lock.base_name}; bring the folder of the image there, or make the bundle again with this checkout"
        )
    built = build_base(recipe)
    packages = ImageLock.read(built.lock).packages
    if packages != lock.packages:
        raise PlaceError(
            f"{built.sif}: was built anew, and has other packages than {path} tells of; make the bundle again"
        )
    return built


def in_image(
    place: Place, words: Sequence[str], variables: Mapping[str, str], binds: Sequence[Path]
) -> tuple[list[str], dict[str, str]]:
    """As `Environment.command`. Variables reach the inside one by one: `--cleanenv` keeps the rest out."""
    import shlex

    environment = dict(os.environ)
    confine(environment)
    for name, value in variables.items():
        if variables.get(name) != os.environ.get(name) or name == "PYTHONPATH":
            environment[f"APPTAINERENV_{name}"] = value
    packages = str(place.folder / _PACKAGES)
    environment["APPTAINERENV_PYTHONPATH"] = os.pathsep.join([variables["PYTHONPATH"], packages])
    options = shlex.split(arguments("", [place.folder, *binds]))
    try:
        program = apptainer.program()
    except ImageError as error:
        raise PlaceError(str(error)) from None
    inside = ["python3", "-P", "-c", _KEEPER, *words]
    return [program, "--silent", "exec", *options, str(place.sif.resolve()), *inside], environment
