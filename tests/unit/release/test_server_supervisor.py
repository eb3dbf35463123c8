"""The supervisor with groups that only say that they are there: what takes over when, and what is tried again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.release.schema import Serving
from assay.release.server import groups, supervisor
from assay.release.server.files import GroupFiles, Wanted, write_file
from assay.release.server.groups import Group
from assay.release.server.settings import Settings
from assay.release.server.supervisor import Supervisor


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (supervisor, groups):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
            monkeypatch.setattr(module.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Made(Group):
    """Of two workers; `ready` and `taking` of them are and do so."""

    ready = 2
    taking = 0
    master = True
    living = True

    @property
    def whole(self) -> bool:
        return self.ready >= 2

    @property
    def accepting(self) -> int:
        return self.taking if self.files.gate == "open" else 0

    @property
    def led(self) -> bool:
        return self.master

    @property
    def alive(self) -> bool:
        return self.living

    def refusal(self) -> str | None:
        return None


class Supervised:
    """A supervisor whose new versions are there at once, unless `missing`: then there is no bundle of theirs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock(monkeypatch)
        self.folder, self.missing, self.tries = folder, False, list[float]()
        monkeypatch.setattr(supervisor, "Making", self._make)
        monkeypatch.setattr(supervisor, "start", self._start)
        self.said: list[str] = []
        settings = Settings(bundle=folder / "one", serving=Serving(workers=2))
        self.supervisor = Supervisor(folder, settings, "127.0.0.1", 0, self.said.append)
        self.supervisor._begin("start", settings)
        self.first = self.until_it_waits(taking=2)
        self.supervisor._follow()
        assert self.supervisor._active is self.first

    def _make(self, *_: object) -> Any:
        self.tries.append(self.clock.now)
        if self.missing:
            raise ValueError("no bundle")
        return self

    def poll(self) -> Any:
        return self

    def close(self) -> None:
        """As of an environment."""

    def _start(self, folder: Path, number: int, settings: Settings, *_: object) -> Group:
        files = GroupFiles(folder / str(number))
        files.workers.mkdir(parents=True)
        return Made(number, files, settings)

    def until_it_waits(self, taking: int) -> Made:
        """The next version, of which so many workers accept."""
        self.supervisor._start_when_made()
        coming = self.supervisor._next
        assert isinstance(coming, Made)
        coming.taking = taking
        self.supervisor._follow()
        return coming

    def order(self, action: Any, bundle: str | None = None) -> None:
        number = self.supervisor._number + 1
        write_file(self.folder / "wanted.json", Wanted(number=number, action=action, bundle=bundle))
        self.supervisor._take_order()


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervised]:
    made = Supervised(tmp_path, monkeypatch)
    yield made
    made.supervisor._listener.close()
    made.supervisor._lock.close()


def last(supervised: Supervised) -> tuple[str, str]:
    swap = supervised.supervisor._service.swaps[-1]
    return swap.action, swap.state


def test_a_version_takes_over_when_each_of_its_workers_accepts_and_the_old_one_stops(
    supervised: Supervised,
) -> None:
    one = supervised.first
    supervised.order("swap", "two")
    two = supervised.until_it_waits(taking=1)
    supervised.supervisor._follow()
    assert supervised.supervisor._active is one and (one.files.gate, two.files.gate) == ("open", "open")
    two.taking = 2
    supervised.supervisor._follow()
    assert supervised.supervisor._active is two and supervised.supervisor._standby is one
    assert (one.files.gate, two.files.gate) == ("closed", "open") and last(supervised) == ("swap", "done")
    supervised.order("swap", "three")
    supervised.until_it_waits(taking=2)
    supervised.supervisor._follow()
    assert supervised.supervisor._standby is two and one.ending is not None, "one old version is kept warm"


def test_a_version_whose_workers_do_not_accept_is_given_up(supervised: Supervised) -> None:
    one = supervised.first
    supervised.order("swap", "two")
    two = supervised.until_it_waits(taking=1)
    supervised.clock.now += supervisor._SWITCH_SECONDS + 1
    supervised.supervisor._follow()
    assert supervised.supervisor._active is one and two.files.gate == "closed" and two.ending is not None
    assert last(supervised) == ("swap", "failed") and one.files.gate == "open"


def test_a_way_back_that_fails_leaves_the_version_warm_and_closed(supervised: Supervised) -> None:
    one = supervised.first
    supervised.order("swap", "two")
    two = supervised.until_it_waits(taking=2)
    supervised.supervisor._follow()
    one.ready = 1
    supervised.order("back")
    assert last(supervised) == ("back", "failed") and supervised.supervisor._standby is one
    one.ready, one.taking = 2, 0
    supervised.order("back")
    supervised.supervisor._follow()
    supervised.clock.now += supervisor._SWITCH_SECONDS + 1
    supervised.supervisor._follow()
    assert supervised.supervisor._active is two and supervised.supervisor._standby is one
    assert (one.files.gate, one.ending, two.files.gate) == ("closed", None, "open")


def test_orders_wait_for_the_one_before(supervised: Supervised) -> None:
    supervised.order("swap", "two")
    supervised.order("retire")
    assert supervised.supervisor._number == 1
    supervised.until_it_waits(taking=2)
    supervised.supervisor._follow()
    supervised.supervisor._take_order()
    assert supervised.supervisor._number == 2 and last(supervised) == ("retire", "done")


def test_what_cannot_be_started_again_is_tried_after_ever_longer_pauses(supervised: Supervised) -> None:
    supervised.first.master, supervised.missing = False, True
    supervised.tries.clear()
    while len(supervised.tries) < 8:
        supervised.supervisor._keep()
        supervised.clock.now += 0.25
    apart = [after - before for before, after in zip(supervised.tries, supervised.tries[1:], strict=False)]
    assert apart == [1, 2, 4, 8, 16, 30, 30]
    supervised.missing = False
    supervised.clock.now += 30
    supervised.supervisor._keep()
    again = supervised.until_it_waits(taking=2)
    supervised.supervisor._follow()
    assert supervised.supervisor._active is again and supervised.first.ending is not None
    assert supervised.supervisor._standby is None and supervised.supervisor._pause == 1
