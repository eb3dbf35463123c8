"""A bundle's image: that of its run, with what a server needs put onto it."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.config.bases import Base
from assay.image import apptainer
from assay.image.build import build as build_base
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import Place as BasePlace
from assay.image.recipe import Recipe, images
from assay.image.running import arguments, confine
from assay.image.verify import verify_file
from assay.release.bundle.manifest import IMAGE_LOCK, REQUIREMENTS
from assay.release.bundle.read import Bundle
from assay.release.environments.place import Place, PlaceError
from assay.release.registry.history import locked

_DEFINITION = """Bootstrap: localimage
From: {base}

%files
    {folder}/requirements.txt /opt/assay/serve/requirements.txt
    {folder}/bootstrap.txt /opt/assay/serve/bootstrap.txt

%post
    set -eu
    if [ -f /srv/index.sh ]; then . /srv/index.sh; fi
    python=/opt/assay/environment/bin/python
    pip="$python -m pip --quiet --disable-pip-version-check"
    $pip install --root-user-action ignore --no-cache-dir --no-compile --require-hashes --no-deps -r /opt/assay/serve/bootstrap.txt
    /opt/assay/environment/bin/uv pip install --quiet --no-cache --python "$python" --compile-bytecode \\
        --require-hashes --no-deps --no-build-isolation -r /opt/assay/serve/requirements.txt
    $pip uninstall --yes uv
"""


def make_image(place: Place, bundle: Bundle) -> None:
    """The image, built unless it is there: under its name only once it is whole.

    Raises: PlaceError, ImageError.
    """
    if place.sif.exists():
        return
    base = _base(bundle)
    bootstrap = Recipe.containers / "bootstrap.txt"
    with locked(place.folder):
        if place.sif.exists():
            return
        work = Path(tempfile.mkdtemp(dir=place.root, prefix=f".{place.name}."))
        try:
            work.chmod(0o755)
            shutil.copyfile(bundle.folder / REQUIREMENTS, work / "requirements.txt")
            shutil.copyfile(bootstrap, work / "bootstrap.txt")
            definition = work / "serve.def"
            definition.write_text(_DEFINITION.format(base=base.sif.absolute(), folder=work))
            apptainer.build(definition, work / f"{place.name}.sif", {})
            work.rename(place.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


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
    options = shlex.split(arguments("", binds))
    try:
        program = apptainer.program()
    except ImageError as error:
        raise PlaceError(str(error)) from None
    inside = ["python3", "-P", *words]
    return [program, "--silent", "exec", *options, str(place.sif), *inside], environment
