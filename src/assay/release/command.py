"""`assay release …`: from the winner to all users, one careful step at a time."""

import argparse
import importlib

ACTIONS: dict[str, tuple[str, str]] = {
    "start": (
        "the ramp, from preflight to the end, or from where it stands",
        "assay.release.ramp.start_command",
    ),
    "pause": ("stay at this share", "assay.release.ramp.order_command"),
    "resume": ("go on after a pause, or give a held step its time again", "assay.release.ramp.order_command"),
    "promote": ("one step on, without waiting for the judge", "assay.release.ramp.order_command"),
    "rollback": ("everyone has what they had", "assay.release.ramp.order_command"),
    "stop": ("end what a release left serving", "assay.release.ramp.stop_command"),
    "check": ("read a release file and say what it would do", "assay.release.ramp.check_command"),
    "status": ("what is served to whom, and how sure the judge is", "assay.release.ramp.status_command"),
    "watch": ("the status, live, until the release is over", "assay.release.ramp.watch_command"),
    "exporter": ("releases as Prometheus metrics, over HTTP", "assay.release.exporter.command"),
    "identity": ("tell the front whose a token is", "assay.release.security.service"),
    "bundle": ("from a finished experiment to what can be served", "assay.release.bundle.command"),
    "env": ("environments that versions run in: make, list, prune", "assay.release.environments.command"),
    "registry": ("versions, aliases, and which served whom when and why", "assay.release.registry.command"),
    "serve": (
        "one version on an address of its own, until it is asked to end",
        "assay.release.server.command",
    ),
    "swap": (
        "another version takes over where one is served, without a request that fails",
        "assay.release.server.swap_command",
    ),
}
"""What each action does, and the module with its `declare` and `run`, imported when it is asked for."""


def declare(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (summary, module) in ACTIONS.items():
        importlib.import_module(module).declare(
            actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        )


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    status: int = importlib.import_module(ACTIONS[arguments.action][1]).run(arguments)
    return status
