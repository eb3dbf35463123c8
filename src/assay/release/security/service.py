"""`assay release identity`: the identity service of a release, one gunicorn worker."""

import argparse
import os
import sys
from pathlib import Path

from assay.release.layout import Layout
from assay.release.load import load
from assay.release.schema import Release
from assay.release.security import alone
from assay.release.security.identity import SETTINGS, Service, Settings
from assay.release.security.salt import make_salt


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="release file")
    parser.add_argument(
        "--bind",
        default="127.0.0.1:8079",
        metavar="ADDRESS",
        help="IP:PORT or unix:/PATH to listen on, for the front alone (default: 127.0.0.1:8079)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Until it is asked to end. Raises: ValueError telling what is wrong."""
    release = load(arguments.file)
    command, environment = identity_process(release, arguments.bind)
    Service(
        Settings.model_validate_json(environment[SETTINGS])
    )  # mistakes are told here, not in a worker's log
    os.execve(command[0], command, os.environ | environment)


def identity_process(release: Release, bind: str) -> tuple[list[str], dict[str, str]]:
    """The command, and what its environment has beside the caller's; no secret is in either.

    The salt is drawn where there is none. bind: `IP:PORT` or `unix:/PATH`, a socket that this user alone may use.
    Raises: ValueError where users are not identified, or the salt cannot be used.
    """
    if release.serving.jwt is None:
        raise ValueError(
            "serving.jwt: is null, so nobody is identified; write `jwt: {jwks: …, algorithms: […], audience: …}`"
        )
    salt = Layout(Path(release.folder) / release.name).salt
    make_salt(salt)
    settings = Settings(jwt=release.serving.jwt, salt=salt)
    command = [sys.executable, "-m", "gunicorn", "assay.release.security.identity:application()"]
    command += [
        *alone.COMMAND,
        "--worker-class",
        "assay.release.security.worker.QuietWorker",
        "--workers",
        "1",
    ]
    command += ["--bind", bind, "--umask", "0o077", "--keep-alive", "75", "--no-control-socket"]
    return command, {SETTINGS: settings.model_dump_json()} | alone.VARIABLES
