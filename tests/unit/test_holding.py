"""A lock of one holder: who asks whether it is held is no holder."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from assay.holding import InUse, hold, holder


def test_a_second_holder_is_refused_and_told_the_first(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    assert holder(path) is None
    first = hold(path)
    name = f"{os.getpid()} on {os.uname().nodename}"
    assert holder(path) == name
    with pytest.raises(InUse, match=name):
        hold(path)
    first.close()
    assert holder(path) is None
    hold(path).close()


def test_one_that_looks_at_it_refuses_nobody(tmp_path: Path) -> None:
    """However long it looks: it may have been stopped in the middle of it."""
    path = tmp_path / ".lock"
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        held: list[str | None] = []

        def take() -> None:
            with hold(path):
                held.append(holder(path))

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.2)
        assert held == [], "nobody holds what another looks at"
        fcntl.flock(looking, fcntl.LOCK_UN)
        thread.join(60)
    assert held == [f"{os.getpid()} on {os.uname().nodename}"]


def test_many_that_look_and_many_that_take_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    done = threading.Event()
    lookers = [
        threading.Thread(target=lambda: [holder(path) for _ in iter(done.is_set, True)]) for _ in range(3)
    ]
    for thread in lookers:
        thread.start()
    for _ in range(50):
        hold(path).close()
    done.set()
    for thread in lookers:
        thread.join()
