"""Profiles of one name in several places: Snakemake takes the first without a word."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path


def named_profiles(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The profiles that a Snakemake command names, as `--profile NAME`, `--profile=NAME` or SNAKEMAKE_PROFILE."""
    given = [after for word, after in pairwise(words) if word == "--profile"]
    given += [word.partition("=")[2] for word in words if word.startswith("--profile=")]
    return given or [name for name in environment.get("SNAKEMAKE_PROFILE", "").split(",") if name]


def shadowed(names: Iterable[str], folders: Iterable[Path]) -> list[tuple[str, Path]]:
    """Name, and the user's or the site's own folder of that name that the one in the current folder hides."""
    return [
        (name, folder / name)
        for name in names
        if Path(name).exists() and Path(name).name == name
        for folder in folders
        if (folder / name).is_dir() and not (folder / name).samefile(name)
    ]
