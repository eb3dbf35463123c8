"""`assay release env make | list | prune`: the environments that versions run in."""

import argparse
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    make = actions.add_parser("make", help="the one that a bundle needs, unless it is there")
    make.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder")
    make.add_argument("--environment", choices=("venv", "apptainer"), default="venv", help="(default: venv)")
    actions.add_parser("list", help="all of them, and what keeps each")
    prune = actions.add_parser("prune", help="remove those that no process, alias or release refers to")
    prune.add_argument("--dry-run", action="store_true", help="tell what would go, and leave it")
    for action in (actions.choices["list"], prune):
        action.add_argument(
            "--releases",
            type=Path,
            default=Path("releases"),
            metavar="FOLDER",
            help="where releases, their registry and environments lie (default: releases)",
        )
        action.add_argument(
            "--registry",
            type=Path,
            action="append",
            default=[],
            metavar="FOLDER",
            help="a further registry's folder whose aliases count",
        )


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    if arguments.what == "make":
        import signal

        from assay.release.environments.prepare import prepare

        # Asked to end, it removes what is half made, as when it is interrupted.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        environment = prepare(arguments.environment, arguments.bundle)
        assert environment.place is not None, "it is not the host's"
        print(environment.place.folder)
        environment.close()
        return 0
    return _list_or_prune(arguments)


def _list_or_prune(arguments: argparse.Namespace) -> int:
    import os

    from assay.release.environments.place import VARIABLE
    from assay.release.environments.prune import Found, find, prune
    from assay.release.environments.references import references

    releases: Path = arguments.releases
    root = Path(os.environ.get(VARIABLE) or releases / "environments")

    def kept() -> dict[str, list[str]]:
        return references(releases, [releases / "registry", *arguments.registry])

    def tell(one: Found, word: str) -> None:
        made = "never finished" if one.about is None else f"{one.about.kind}, made {one.about.made[:19]}Z"
        print(f"{one.place.folder}  {one.size / 1e6:,.0f} MB  {made}  {word}")

    if arguments.what == "list" or arguments.dry_run:
        found = find(root, kept())
        if not found:
            print(f"{root}: no environments")
        for one in found:
            tell(one, f"kept by {'; '.join(one.reasons)}" if one.reasons else "nothing refers to it")
        return 0
    gone, stayed = prune(root, kept)
    if not gone and not stayed:
        print(f"{root}: no environments")
    for one in gone:
        print(f"removed {one.place.folder}")
    for one in stayed:
        print(f"kept {one.place.folder}: {'; '.join(one.reasons)}")
    return 0
