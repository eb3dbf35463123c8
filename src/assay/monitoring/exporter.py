"""`assay exporter`: the state of experiments as Prometheus metrics, over HTTP or in a file, from their logs alone."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from assay.monitoring.options import add_interval, add_silence
from assay.monitoring.programs import PORTS
from assay.records import write_atomically

RESULTS = Path("results")


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of experiments (default: results)"
    )
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: this machine only)")
    parser.add_argument(
        "--port", type=int, help=f"to listen on (default: {PORTS['exporter']}, or not at all with --textfile)"
    )
    parser.add_argument(
        "--textfile",
        type=Path,
        metavar="FILE.prom",
        help="write here for node_exporter's textfile collector; removed at the end",
    )
    add_interval(parser, 15.0, "writes", least=0.1, most=60)
    add_silence(parser)
    parser.add_argument("--once", action="store_true", help="write the file once, and end")


def run(arguments: argparse.Namespace) -> int:
    """Until somebody asks it to end. Raises: ValueError telling what is wrong."""
    _check(arguments)
    os.umask(0o022)  # node_exporter is another user
    from prometheus_client import CollectorRegistry

    from assay.monitoring.metrics import Collector

    registry = CollectorRegistry()
    registry.register(Collector(arguments.results, arguments.silence))
    if arguments.once:
        _write(arguments.textfile, registry)
        return 0
    ended = on_request()
    with contextlib.ExitStack() as stack:
        if arguments.port is not None or arguments.textfile is None:
            port = PORTS["exporter"] if arguments.port is None else arguments.port
            server = serve("assay exporter", arguments.address, port, registry)
            stack.callback(server.shutdown)
            print(shown(server), flush=True)
        if arguments.textfile is None:
            ended.wait()
        else:
            stack.callback(arguments.textfile.unlink, missing_ok=True)
            _keep_writing(arguments.textfile, registry, arguments.interval, ended)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    textfile, results = arguments.textfile, arguments.results
    if results.exists() and not results.is_dir():
        raise ValueError(
            f"assay exporter: {results}: is no folder; --results names the folder of experiments"
        )
    if (results / "experiment.yaml").exists():
        raise ValueError(
            f"assay exporter: {results}: is one experiment; write --results {results.parent}, where all of them are"
        )
    if arguments.once and textfile is None:
        raise ValueError("assay exporter: --once writes a file: add --textfile FILE.prom")
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise ValueError(
            f"assay exporter: --port {arguments.port}: write a port from 0 (any that is free) to 65535"
        )
    if textfile is not None and textfile.suffix != ".prom":
        raise ValueError(
            f"assay exporter: --textfile {textfile}: node_exporter reads files that end in .prom only"
        )
    if textfile is not None and not textfile.parent.is_dir():
        raise ValueError(
            f"assay exporter: --textfile {textfile}: {textfile.parent} is no folder; make it first"
        )


def on_request() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


def shown(server: Any) -> str:
    """Where its metrics are."""
    host, port = server.server_address[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def serve(command: str, address: str, port: int, registry: Any) -> Any:
    """Raises: ValueError where the address is taken or not this machine's."""
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        raise ValueError(
            f"{command}: {address}:{port}: {error.strerror}; choose another with --port or --address"
        ) from None
    return server


def _keep_writing(textfile: Path, registry: Any, interval: float, ended: threading.Event) -> None:
    """Raises: ValueError where not even the first write succeeds. Later, a full disk may pass: it is told once."""
    _write(textfile, registry)
    told = ""
    while not ended.wait(interval):
        try:
            _write(textfile, registry)
            told = ""
        except ValueError as error:
            if str(error) != told:
                told = str(error)
                print(told, file=sys.stderr, flush=True)


def _write(textfile: Path, registry: Any) -> None:
    """Whole or not at all. Raises: ValueError."""
    from prometheus_client import generate_latest

    try:
        write_atomically(textfile, generate_latest(registry))
    except OSError as error:
        raise ValueError(f"assay exporter: --textfile {textfile}: {error.strerror}") from None
