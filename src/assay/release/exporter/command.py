"""`assay release exporter`: releases as Prometheus metrics over HTTP."""

import argparse
from pathlib import Path

from assay.monitoring.programs import PORTS

RELEASES = Path("releases")


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--releases", type=Path, default=RELEASES, help="folder of releases (default: releases)"
    )
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: this machine only)")
    parser.add_argument(
        "--port",
        type=int,
        default=PORTS["releases"],
        help=f"to listen on (default: {PORTS['releases']}; 0: any)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Until somebody asks it to end. Raises: ValueError telling what is wrong."""
    from assay.monitoring.exporter import on_request, serve, shown
    from assay.release.exporter.metrics import Collector

    if arguments.releases.exists() and not arguments.releases.is_dir():
        raise ValueError(
            f"assay release exporter: {arguments.releases}: is no folder; --releases names the folder of releases"
        )
    if (arguments.releases / "journal.jsonl").exists():
        raise ValueError(
            f"assay release exporter: {arguments.releases}: is one release; write --releases {arguments.releases.parent}, where all of them are"
        )
    if not 0 <= arguments.port <= 65535:
        raise ValueError(
            f"assay release exporter: --port {arguments.port}: write a port from 0 (any that is free) to 65535"
        )
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(Collector(arguments.releases))
    ended = on_request()
    server = serve("assay release exporter", arguments.address, arguments.port, registry)
    print(shown(server), flush=True)
    ended.wait()
    server.shutdown()
    return 0
