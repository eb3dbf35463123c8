"""`assay slurm-profile`: look at a site, write its profile."""

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from assay.image.index import pip_settings
from assay.records import write_atomically
from assay.slurm.profile import PARTITIONS, advice, described, partitions_text, profile_text
from assay.slurm.site import SlurmError, look, probe

OUTPUT = Path("profiles/site")
_PORTS = {"http": 80, "https": 443}


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help=f"the profile's folder (default: {OUTPUT})"
    )
    parser.add_argument("--force", action="store_true", help="write over a profile that is there")
    parser.add_argument(
        "--no-probe", action="store_true", help="submit no job to look at the nodes from inside"
    )
    parser.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for such a job to start")
    parser.add_argument(
        "--reach",
        metavar="HOST:PORT",
        help="what nodes should reach (default: pip's index, where one is configured)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises: SlurmError where there is no Slurm, or a profile would be lost."""
    target = arguments.output / "config.yaml"
    if target.exists() and not arguments.force:
        raise SlurmError(f"{target}: is there already; --force writes over it, --output names another folder")
    reach = arguments.reach or configured_index()
    if reach is not None and not reach.rpartition(":")[2].isdigit():
        raise SlurmError(f"--reach {reach}: write HOST:PORT")
    site = look()
    if not arguments.no_probe:
        print(f"Looking at a node of each of {len(site.partitions)} partitions …", file=sys.stderr)
        site = probe(site, Path.cwd(), reach, arguments.wait)
    arguments.output.mkdir(parents=True, exist_ok=True)
    limits = arguments.output / PARTITIONS
    write_atomically(limits, partitions_text(site).encode())
    write_atomically(target, profile_text(site, os.fspath(limits)).encode())
    print(described(site))
    told = advice(site)
    for note in told.notes:
        print(f"note: {note}")
    for problem in told.problems:
        print(f"problem: {problem}")
    print(f"\nWritten: {target}. Run: snakemake --profile {arguments.output}")
    return 1 if told.problems else 0


def configured_index() -> str | None:
    """HOST:PORT of the package index that pip is configured for."""
    url = urlsplit(pip_settings().get("index-url", ""))
    port = url.port or _PORTS.get(url.scheme)
    return f"{url.hostname}:{port}" if url.hostname and port else None
