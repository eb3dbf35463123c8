"""`assay release pause | resume | promote | rollback`: a person's word, which always wins."""

import argparse
import contextlib
import getpass
import time
from typing import TYPE_CHECKING, cast

from assay.holding import holder
from assay.release.ramp.options import declare_release

if TYPE_CHECKING:
    from assay.release.layout import Layout
    from assay.release.ramp.orders import Order
    from assay.release.ramp.status import Standing

EXIT_CODES = """exit codes:
  0  taken (rollback: nobody has the candidate any more)
  1  not taken within --wait seconds; it stays, and is taken when the controller is there
  2  wrong arguments, or nothing to do in this phase
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    declare_release(parser)
    parser.add_argument("--reason", default="no reason given", help="kept in the journal")
    parser.add_argument("--by", help="who orders it (default: this machine's user)")
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="for it to be taken")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError."""
    from assay.release.ramp import orders
    from assay.release.ramp.find import find
    from assay.release.ramp.status import Standing

    order = cast("Order", arguments.action)
    layout = find(arguments.release)
    standing = Standing(layout)
    if standing.state.successor is not None:
        raise ValueError(
            f"assay release {order}: {standing.state.release} is over, and release "
            f"{standing.state.successor} serves its users now: name {standing.state.successor} instead"
        )
    done = standing.state.phase == "rolled_back" or (standing.state.over and order != "rollback")
    if done:
        words = standing.state.phase.replace("_", " ")
        raise ValueError(
            f"assay release {order}: {standing.state.release} is {words}: there is nothing to {order}"
        )
    who = arguments.by or _user()
    try:
        name = orders.place(layout, order, by=who, reason=arguments.reason, at=standing.lines[-1].number)
    except OSError as error:
        raise ValueError(_not_placed(standing, order, error)) from None
    if order == "rollback":
        _halt(standing)
        if holder(layout.lock) is None:
            from assay.release.ramp.start import drive

            print("no controller runs: rolling back from here", flush=True)
            drive(layout, until_over=True)
    return _await(layout, name, order, arguments.wait)


def _not_placed(standing: "Standing", order: "Order", error: OSError) -> str:
    what = (
        f"assay release {order}: the order cannot be written to {standing.layout.orders} ({error.strerror})"
    )
    if order != "rollback":
        return what
    _halt(standing)
    return f"{what}; everyone has the stable version until the controller can write again: make room, and order it again"


def _halt(standing: "Standing") -> None:
    """New requests go to the stable version from this instant, whatever keeps the controller busy."""
    from assay.release.routing.front import front_of

    # A front that cannot be had here is the controller's to tell.
    with contextlib.suppress(ValueError, OSError):
        front_of(standing.release, standing.layout).halt()


def _await(layout: "Layout", name: str, order: "Order", seconds: float) -> int:
    from assay.release.ramp.status import Standing, told

    deadline = time.monotonic() + seconds
    while True:
        standing = Standing(layout)
        taken = name in standing.state.taken
        settled = order != "rollback" or standing.state.phase == "rolled_back" or standing.progress.share == 0
        if taken and settled:
            line = next(line for line in standing.lines if name in line.state.taken)
            print(told(line, standing.release))
            if line.event == "ignored":
                raise ValueError(f"assay release {order}: {line.reason}")
            return 0
        if time.monotonic() > deadline:
            waits = (
                "no controller runs: start it (assay release start)" if holder(layout.lock) is None else ""
            )
            print(f"not taken yet; {waits or 'the controller is busy'}")
            return 1
        time.sleep(0.1)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
