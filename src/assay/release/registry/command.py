"""`assay release registry …`: versions, aliases, and the record of what happened."""

import argparse
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from assay.release.registry.store import Registry

DEFAULT = "releases/registry"


def declare(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    add = actions.add_parser("add", help="take a bundle in")
    add.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, e.g. results/digits/bundle/cnn")
    add.add_argument("--alias", metavar="NAME", help="give it this alias too, e.g. candidate")
    actions.add_parser("list", help="all versions, with their aliases")
    show = actions.add_parser("show", help="one version: what it is, and whom it served")
    show.add_argument("version", metavar="VERSION", help="or @ALIAS")
    alias = actions.add_parser("alias", help="point an alias at a version, or take it away")
    alias.add_argument(
        "alias", metavar="NAME", help="champion: what users have; candidate: what may follow it"
    )
    alias.add_argument("version", metavar="VERSION", nargs="?", help="or @ALIAS; none: take the alias away")
    history = actions.add_parser("history", help="which version served whom, when, and why that changed")
    history.add_argument("--json", action="store_true", help="the lines as they are")
    for action in (add, alias):
        action.add_argument("--reason", default="", metavar="TEXT", help="why; it stands in the record")
    for action in (add, show, alias, history, actions.choices["list"]):
        default = "the bundle's experiment" if action is add else "the only one there is"
        action.add_argument("--model", metavar="NAME", help=f"which model (default: {default})")
        action.add_argument(
            "--registry",
            default=DEFAULT,
            metavar="URI",
            help=f"`http(s)://…` of an MLflow server, or a folder (default: {DEFAULT})",
        )


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    import re

    from assay.config.arm import NAME_PATTERN
    from assay.release.registry.store import open_registry
    from assay.release.schema import Registry as Settings

    model = arguments.model or _only_model(arguments)
    if not re.fullmatch(NAME_PATTERN, model):
        raise ValueError(
            f"--model {model}: write small letters, digits, _ and -, beginning with a letter or digit"
        )
    settings = Settings(model=model, uri=arguments.registry)
    registry = open_registry(settings)
    {"add": _add, "list": _list, "show": _show, "alias": _alias, "history": _history}[arguments.what](
        registry, arguments
    )
    return 0


def _only_model(arguments: argparse.Namespace) -> str:
    """Of a new version the experiment's name, which all its arms share; else the one that has a folder. Raises: ValueError."""
    if arguments.what == "add":
        from assay.release.bundle.read import read

        return read(arguments.bundle).manifest.experiment
    folder = Path(DEFAULT if "://" in arguments.registry else arguments.registry)
    found = sorted(path.parent.name for path in folder.glob("*/history.jsonl"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"assay release registry: {folder} has no model yet; add one: assay release registry add BUNDLE"
        )
    raise ValueError(f"assay release registry: name the model: --model NAME, one of {', '.join(found)}")


def _add(registry: "Registry", arguments: argparse.Namespace) -> None:
    from assay.release.bundle.read import read

    version = registry.register(arguments.bundle, arguments.reason)
    print(
        f"{registry.backend.name}: {registry.model} version {version} ({read(arguments.bundle).manifest.name})"
    )
    if arguments.alias:
        registry.move(arguments.alias, version, arguments.reason)
        print(f"@{arguments.alias}: {version}")


def _list(registry: "Registry", _: argparse.Namespace) -> None:
    registry.tell()
    aliases = registry.aliases()
    for version in registry.versions():
        names = " ".join(f"@{alias}" for alias, known in sorted(aliases.items()) if known == version)
        print(f"{version}  {names}".rstrip())


def _show(registry: "Registry", arguments: argparse.Namespace) -> None:
    from assay.release.bundle.read import read

    word = arguments.version if arguments.version.startswith("@") else f"@{arguments.version}"
    folder = registry.resolve(word)
    manifest = read(folder).manifest
    print(f"{manifest.name} version {manifest.version}: {folder}")
    print(f"  run      {manifest.experiment}, {manifest.arm}, seed {manifest.seed} ({manifest.chosen.rule})")
    print(f"  verdict  {'none' if manifest.verdict is None else manifest.verdict.headline}")
    for entry in registry.history.read():
        if manifest.version in (entry.version, entry.previous):
            print(f"  {_line(entry)}")


def _alias(registry: "Registry", arguments: argparse.Namespace) -> None:
    if arguments.version is None:
        previous, version = registry.remove(arguments.alias, arguments.reason), None
    else:
        version = arguments.version
        if version.startswith("@"):
            version = registry.resolve(version).name
        previous = registry.move(arguments.alias, version, arguments.reason)
    print(f"@{arguments.alias}: {previous or 'none'} → {version or 'none'}")


def _history(registry: "Registry", arguments: argparse.Namespace) -> None:
    for entry in registry.history.read():
        print(entry.model_dump_json() if arguments.json else _line(entry))


def _line(entry: object) -> str:
    from assay.release.registry.history import Entry

    assert isinstance(entry, Entry)
    if entry.event == "registered":
        what = f"{entry.version} registered"
    elif entry.event == "alias":
        what = f"@{entry.alias}: {entry.previous or 'none'} → {entry.version or 'none'}"
    else:
        share = "nobody" if entry.share is None else f"{entry.share:.0%} of identified users"
        what = f"{entry.version} serves {share} as {entry.role} of {entry.release}"
    return f"{entry.timestamp}  {what}" + (f"  ({entry.reason})" if entry.reason else "") + f"  by {entry.by}"
