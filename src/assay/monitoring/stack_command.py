"""`assay monitor`: the exporter, Prometheus, Alertmanager and Grafana, as far as they are installed."""

import argparse
import ipaddress
import sys
from pathlib import Path
from urllib.parse import urlsplit

from assay.monitoring.options import add_interval, add_silence
from assay.monitoring.programs import PORTS, Plan
from assay.monitoring.stack import MonitorError, StartError, read, start, stop

TEMPLATES = Path(__file__).parents[3] / "monitoring"
RESULTS = Path("results")
RELEASES = Path("releases")
STATE = ".monitor"

ACTIONS = {
    "start": "start what is installed and print where it listens",
    "stop": "end what was started; data and logs stay",
    "status": "what runs",
}


def declare(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument(
            "--results", type=Path, default=RESULTS, help="folder of experiments (default: results)"
        )
        action.add_argument(
            "--state",
            type=Path,
            help="folder of data, logs and process ids, on a local disk (default: RESULTS/.monitor)",
        )
        if name == "start":
            _declare_start(action)


def _declare_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--releases",
        type=Path,
        help="folder of gray releases to watch too (default: releases, where there is one)",
    )
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: this machine only)")
    for service, port in PORTS.items():
        parser.add_argument(
            f"--{service}-port", type=_port, default=port, metavar="PORT", help=f"(default: {port})"
        )
    add_interval(parser, 5.0, "scrapes", least=0.5, most=3600)
    add_silence(parser)
    parser.add_argument(
        "--webhook", type=_webhook, metavar="URL", help="told by POST of each alert that begins or ends"
    )
    parser.add_argument(
        "--configuration",
        type=Path,
        default=TEMPLATES,
        metavar="FOLDER",
        help="a copy of Assay's monitoring/ folder",
    )


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text}: write a port from 1 to 65535")
    return int(text)


def _webhook(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text}: write http://HOST:PORT/PATH or https://…")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    state = (arguments.state or arguments.results / STATE).absolute()
    if arguments.action == "start":
        return _start(arguments, state)
    if arguments.action == "stop":
        stopped = stop(state)
        print(
            "\n".join(f"{service.name} ended" for service in stopped) or f"nothing ran that {state} knows of"
        )
        return 0
    return _status(state)


def _start(arguments: argparse.Namespace, state: Path) -> int:
    if arguments.results.exists() and not arguments.results.is_dir():
        raise MonitorError(f"{arguments.results}: is no folder; --results names the folder of experiments")
    plan = Plan(
        results=arguments.results.absolute(),
        state=state,
        configuration=arguments.configuration,
        address=arguments.address,
        ports={service: getattr(arguments, f"{service}_port") for service in PORTS},
        interval=arguments.interval,
        silence=arguments.silence,
        webhook=arguments.webhook,
        releases=_releases(arguments.releases),
    )
    if len(set(plan.ports.values())) < len(plan.ports):
        raise MonitorError(
            "each service needs a port of its own: " + ", ".join(f"--{name}-port" for name in PORTS)
        )
    try:
        services, missing = start(plan)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    for service in services:
        own = service.name in ("exporter", "releases")
        print(f"{service.name:13} {service.url}" + ("/metrics" if own else ""))
    for note in missing:
        print(f"note: {note}")
    if not _is_loopback(plan.address):
        print(f"warning: whoever reaches {plan.address} can read all of it: none of it asks for a password")
    print(f"Process ids, logs and data: {state}. End with: assay monitor stop")
    return 0


def _releases(given: Path | None) -> Path | None:
    """Raises: MonitorError."""
    folder = given or (RELEASES if RELEASES.is_dir() else None)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise MonitorError(f"{folder}: is no folder; --releases names the folder of releases")
    return None if folder is None else folder.absolute()


def _status(state: Path) -> int:
    services = read(state)
    for service in services:
        how = f"runs, process {service.process}" if service.runs else f"HAS ENDED, see {service.log}"
        print(f"{service.name:13} {service.url:30} {how}")
    if not services:
        print(f"nothing was started that {state} knows of")
    return 0 if services and all(service.runs for service in services) else 1


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
