"""`assay release serve`: one version on an address of its own, until it is asked to end."""

import argparse
import os
from pathlib import Path

from pydantic import ValidationError

from assay.release.layout import Layout
from assay.release.schema import Batching, Limits, Serving
from assay.release.server.settings import Settings

EXIT_CODES = """It runs until SIGTERM or SIGINT. Started again in the same folder it takes over what runs there still.

exit codes: 0 asked to end; 1 the version cannot be served; 2 wrong arguments"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="folder that `assay release bundle` wrote"
    )
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: this machine only)")
    parser.add_argument(
        "--port", type=int, help="to listen on (default: 8000, or the one of what runs there still; 0: any)"
    )
    parser.add_argument(
        "--role", choices=["stable", "candidate"], default="stable", help="which version of a release it is"
    )
    parser.add_argument(
        "--release",
        type=Path,
        metavar="FOLDER",
        help="of a release that was started, e.g. releases/digits: its settings are taken from there",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="for process ids, sockets and logs (default: run/ROLE of the release, or service/)",
    )
    for flag, (kind, help_) in _OPTIONS.items():
        parser.add_argument(
            f"--{flag}", type=kind, help=f"{help_}; default: the release's or {_default(flag)}"
        )


_OPTIONS = {
    "workers": (int, "processes"),
    "threads": (int, "PyTorch's threads per worker"),
    "cpus": (
        int,
        "CPU cores, divided evenly between workers; the candidate has the next ones after stable's",
    ),
    "environment": (str, "host, venv or apptainer"),
    "device": (str, "cpu or cuda"),
    "batch": (int, "most samples that go through the model together; 1: requests go one by one"),
    "batch-wait-ms": (float, "longest that a request waits for others"),
    "body-bytes": (int, "largest request body"),
    "samples": (int, "most samples in one request"),
    "timeout": (float, "seconds that a request may take"),
}
_PLACES = {
    "batch": ("batching", "size"),
    "batch-wait-ms": ("batching", "wait_ms"),
    "body-bytes": ("limits", "body_bytes"),
    "samples": ("limits", "samples"),
    "timeout": ("limits", "timeout_seconds"),
}


def _default(flag: str) -> object:
    section: Serving | Batching | Limits = Serving()
    group, name = _PLACES.get(flag, ("", flag))
    if group:
        section = getattr(section, group)
    value = getattr(section, name)
    return "unbound" if value is None else value


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    from assay.release.server.supervisor import Supervisor

    settings = settings_of(arguments)
    folder = arguments.folder or (
        Layout(arguments.release).service(arguments.role) if arguments.release else Path("service")
    )
    supervisor = Supervisor(
        folder.absolute(),
        settings,
        arguments.address,
        arguments.port,
        _say,
    )
    host = f"[{arguments.address}]" if ":" in arguments.address else arguments.address
    _say(f"http://{host}:{supervisor.port}")
    return supervisor.run()


def _say(text: str) -> None:
    print(text, flush=True)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises: ValueError naming the argument."""
    if not (arguments.bundle / "bundle.json").is_file():
        raise ValueError(
            f"assay release serve: {arguments.bundle}: no bundle; make one: "
            "assay release bundle results/EXPERIMENT --arm NAME"
        )
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise ValueError(f"assay release serve: --port {arguments.port}: write 0 to 65535")
    serving = Serving()
    places: dict[str, Path | None] = {"predictions": (arguments.folder or Path("service")) / "predictions"}
    if arguments.release is not None:
        from assay.release.load import load

        layout = Layout(arguments.release.absolute())
        serving = load(layout.resolved).serving
        places = {
            "predictions": layout.predictions(arguments.role),
            "salt": layout.salt,
            "shared": layout.shared,
            "copies": layout.shadow_queue if arguments.role == "stable" else None,
        }
    serving = _changed(serving, arguments)
    return Settings(
        bundle=arguments.bundle.resolve(),
        role=arguments.role,
        serving=serving,
        cpus=cpus_of(serving, arguments.role),
        **{name: path.absolute() for name, path in places.items() if path is not None},
    )


def _changed(serving: Serving, arguments: argparse.Namespace) -> Serving:
    content = serving.model_dump()
    for flag in _OPTIONS:
        value = getattr(arguments, flag.replace("-", "_"))
        if value is not None:
            group, name = _PLACES.get(flag, ("", flag))
            (content[group] if group else content)[name] = value
    try:
        return Serving.model_validate(content)
    except ValidationError as error:
        flags = {
            ".".join(place).lstrip("."): flag
            for flag in _OPTIONS
            for place in [_PLACES.get(flag, ("", flag))]
        }
        problems = [
            f"--{flags['.'.join(map(str, one['loc']))]} {one['input']}: {one['msg'].replace('Input should', 'it should')}"
            for one in error.errors()
        ]
        raise ValueError("assay release serve: " + "; ".join(problems)) from None


def cpus_of(serving: Serving, role: str) -> list[int] | None:
    """The role's own cores; None: unbound. Raises: ValueError where the machine has too few for two versions."""
    if serving.cpus is None:
        return None
    there = sorted(os.sched_getaffinity(0))
    first = serving.cpus if role == "candidate" else 0
    own = there[first : first + serving.cpus]
    if len(own) < serving.cpus:
        raise ValueError(
            f"serving.cpus: {serving.cpus} for each version are more than the {len(there)} cores here; "
            f"write cpus: {max(1, len(there) // 2)} or fewer, or null"
        )
    return own
