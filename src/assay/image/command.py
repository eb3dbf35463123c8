"""`assay image …`: the image of an experiment, by hand."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from assay.config.bases import BASES, SCHEME, Base, parse
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import Place, Recipe, images, place
from assay.registry import digest_of

ACTIONS: dict[str, str] = {
    "list": "the bases that an experiment may name, and the images that are built",
    "lock": "the digest behind a tag, as lines for the experiment file",
    "build": "build an experiment's image, unless it is there",
    "verify": "whether an experiment's image is still what was built: file, packages and every file in it",
    "packages": "what is installed in an experiment's image, by name and version",
}


def declare(parser: argparse.ArgumentParser, default: Path) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary)
        if name == "list":
            action.add_argument("--check", action="store_true", help="ask the registry what each tag is now")
        elif name == "lock":
            action.add_argument("reference", metavar="docker://NAME:TAG")
        else:
            action.add_argument("file", type=Path, nargs="?", default=default, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    if arguments.action == "list":
        return _list(check=arguments.check)
    if arguments.action == "lock":
        return _lock(arguments.reference)
    from assay.config.load import load

    recipe = Recipe(load(arguments.file).image.chosen)
    commands: dict[str, Callable[[Recipe], None]] = {
        "build": _build,
        "verify": _verify,
        "packages": _packages,
    }
    commands[arguments.action](recipe)
    return 0


def _list(*, check: bool) -> int:
    moved = 0
    for name, base in BASES.items():
        note = ""
        if check:
            now = digest_of(base.name, base.tag or "latest")
            moved += now not in (None, base.digest)
            note = "  " + (
                "not asked: no answer" if now is None else "as listed" if now == base.digest else now
            )
        print(f"{name:28}  {base.name}:{base.tag}  {base.digest}{note}")
    for lock in sorted(images().glob("*/lock.json")):
        print(f"{lock.parent}  built {ImageLock.read(lock).built}")
    if moved:
        print(f"{moved} tags mean another image now; the digests in the list still decide", file=sys.stderr)
    return int(moved > 0)


def _lock(reference: str) -> int:
    name, tag, digest = parse(reference)
    found = digest or digest_of(name, tag or "latest")
    if found is None:
        raise ImageError(
            f"{reference}: nobody could be asked for its digest; install skopeo, check the network, "
            "or read the digest on the registry's page"
        )
    print(f"image:\n  reference: {Base(name, tag, found).reference}")
    return 0


def _build(recipe: Recipe) -> None:
    from assay.image.build import build

    print(build(recipe).sif)


def _there(recipe: Recipe) -> Place:
    found = place(recipe)
    if not found.folder.exists():
        raise ImageError(f"{found.folder}: is not built; assay image build FILE")
    return found


def _verify(recipe: Recipe) -> None:
    from assay.image.verify import verify_content, verify_file, verify_packages

    found = _there(recipe)
    lock = verify_file(found)
    verify_packages(found, lock)
    verify_content(found, lock)
    print(
        f"{found.sif}: as built; {len(lock.packages)} packages and {lock.content_files:,} files are the lock's"
    )


def _packages(recipe: Recipe) -> None:
    lock = ImageLock.read(_there(recipe).lock)
    print(f"Python {lock.python}; base {SCHEME}{lock.base_name}@{lock.base_digest}")
    for kind in (lock.packages, lock.system_packages):
        for name, version in sorted(kind.items()):
            print(f"{name}=={version}")
