"""`assay release bundle`: from a finished experiment to what can be served."""

import argparse
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="RESULTS", help="a finished experiment, e.g. results/digits")
    add("--arm", required=True, metavar="NAME", help="which arm")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="which seed's run (default: the one with the median validation accuracy)",
    )
    add("--output", type=Path, metavar="FOLDER", help="where it goes (default: RESULTS/bundle/ARM)")
    add(
        "--module-root",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="where modules of your own lie (default: where the training found them)",
    )
    add(
        "--requirements",
        type=Path,
        metavar="FILE",
        help="another hash-locked file of what the server imports, e.g. with packages of your own model",
    )
    add("--image-lock", type=Path, metavar="FILE", help="lock of the image that it may be served in")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    from assay.release.bundle.contents import LOCK
    from assay.release.bundle.make import Asked, make

    output = arguments.output or arguments.folder / "bundle" / arguments.arm
    asked = Asked(
        results=arguments.folder,
        arm=arguments.arm,
        seed=arguments.seed,
        module_roots=arguments.module_root,
        requirements=arguments.requirements or LOCK,
        image_lock=arguments.image_lock,
    )
    manifest = make(asked, output)
    print(
        f"{output}: {manifest.name} version {manifest.version}, of seed {manifest.seed} ({manifest.chosen.rule})"
    )
    return 0
