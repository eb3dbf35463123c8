"""`assay release swap`: another version takes over where one is served, without a request that fails."""

import argparse
import fcntl
import time
from pathlib import Path

from assay.release.server.files import Action, Service, Swap, Wanted, read_file, write_file


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "exit codes: 0 it took over; 1 it did not, and what answered before answers still; 2 wrong arguments"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "bundle", type=Path, nargs="?", metavar="BUNDLE", help="the version that is to take over"
    )
    what.add_argument("--back", action="store_true", help="the version before, which is warm still")
    what.add_argument("--retire", action="store_true", help="end the version that is kept warm")
    what.add_argument(
        "--abandon", action="store_true", help="give up the version that is on its way, taken at once"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("service"), help="of `assay release serve` (default: service/)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    folder = arguments.folder.absolute()
    bundle = None if arguments.bundle is None else arguments.bundle.resolve()
    if bundle is not None and not (bundle / "bundle.json").is_file():
        raise ValueError(
            f"assay release swap: {arguments.bundle}: no bundle; make one: assay release bundle …"
        )
    given: dict[Action, bool] = {
        "back": arguments.back,
        "retire": arguments.retire,
        "abandon": arguments.abandon,
        "swap": bundle is not None,
    }
    action = next(action for action, asked in given.items() if asked)
    number = order(folder, action, bundle)
    shown = None
    while True:
        swap = outcome(folder, number)
        if swap is not None and swap.state != shown:
            shown = swap.state
            print(f"{swap.state}{f': {swap.reason}' if swap.reason else ''}", flush=True)
        if swap is not None and swap.ended is not None:
            return 0 if swap.state == "done" else 1
        time.sleep(0.05)


def running(folder: Path) -> Service:
    """Raises: ValueError where no supervisor runs."""
    service = read_file(folder / "service.json", Service)
    if service is None or not service.process.alive:
        raise ValueError(f"{folder}: no `assay release serve` runs there; start it, or name its --folder")
    return service


def order(folder: Path, action: Action, bundle: Path | None = None) -> int:
    """Ask the supervisor; returns the order's number. Raises: ValueError where none runs."""
    running(folder)
    with (folder / "wanted.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_file(folder / "wanted.json", Wanted)
        number = 1 if before is None else before.number + 1
        bundle_text = None if bundle is None else str(bundle)
        write_file(folder / "wanted.json", Wanted(number=number, action=action, bundle=bundle_text))
    return number


def outcome(folder: Path, number: int) -> Swap | None:
    """How an order stands; None: it was not taken yet. Raises: ValueError where nobody will take it."""
    service = running(folder)
    for swap in service.swaps:
        if swap.number == number:
            return swap
    wanted = read_file(folder / "wanted.json", Wanted)
    if wanted is not None and wanted.number > number:
        raise ValueError(
            f"{folder}: another order came before this one was taken; look at service.json there"
        )
    return None
