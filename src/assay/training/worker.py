"""One rank of a run on several devices, as torchrun starts it."""

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

import torch.distributed as dist

from assay.training.board import Board
from assay.training.folder import Run
from assay.training.loop import Interrupted
from assay.training.outcomes import first_line, out_of_memory
from assay.training.ranks import join
from assay.training.run import StopRequest, train_as

LAST_WORDS_SECONDS = 3.0
"""How long a rank whose partner went away waits for somebody who knows why."""
_PR_SET_PDEATHSIG = 1


def work(run: Run) -> NoReturn:
    """Train as one rank, and say on the board how that ended. Its own exit status means nothing but to torchrun."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    rank = int(os.environ["RANK"])
    board = Board(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    board.put(f"process/{rank}", os.getpid())
    stop = StopRequest()
    stop.listen()  # for good: a signal that comes again after the last checkpoint must not kill what says so
    status = 0
    try:
        _train(run, board, stop)
        board.put(f"done/{rank}")
        dist.destroy_process_group()
    except Exception as error:
        status = 1
        _last_words(board, rank, error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # an orderly exit could wait for a partner that is gone


def _train(run: Run, board: Board, stop: StopRequest) -> None:
    ranks = join(run.settings.execution)
    ranks.wait()
    if ranks.first:
        board.put("met")
    try:
        train_as(run, ranks, stop, begun=lambda about: board.put("run", about))
    except Interrupted as interruption:
        board.end(kind="stopped", signal=interruption.args[0])


def _last_words(board: Board, rank: int, error: Exception) -> None:
    """Name the cause. An error of communication may only be what another rank's end looks like from here."""
    here = {"rank": rank, "host": socket.gethostname(), "process": os.getpid()}
    if out_of_memory(error):
        board.end(kind="out_of_memory", message=first_line(error), **here)
        return
    if isinstance(error, ValueError):
        board.end(kind="refused", message=str(error))
        return
    end = time.monotonic() + LAST_WORDS_SECONDS
    while isinstance(error, RuntimeError) and time.monotonic() < end:
        if board.ending is not None:
            return
        time.sleep(0.1)
    traceback.print_exception(error)
    board.end(kind="failed", message=f"{type(error).__name__}: {first_line(error)}", **here)
