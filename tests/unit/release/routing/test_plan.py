"""Plans that no front could hold are refused before any front sees them."""

from pathlib import Path

import pytest

from assay.release.layout import Layout
from assay.release.routing import front as module
from assay.release.routing.front import Standing, listen
from assay.release.routing.gunicorn import PythonFront
from assay.release.routing.nginx import NginxFront
from assay.release.routing.plan import Plan, check_folder
from assay.release.schema import Limits, Routing

STABLE, CANDIDATE = "127.0.0.1:1", "[::1]:2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generation": -1}, "generation -1"),
        ({"share": 2}, "between 0 and 1"),
        ({"candidate": None}, "share 0.5 without a candidate"),
        ({"candidate": STABLE}, "the same address"),
        ({"stable": "127.0.0.1"}, "stable: '127.0.0.1' is no address"),
        ({"stable": "localhost:80"}, "write IP:PORT"),
        ({"stable": "127.0.0.1:99999"}, "no address"),
        ({"stable": "::1:80"}, "no address"),
        ({"stable": "127.0.0.1:1; return 200"}, "no address"),
        ({"identity": "unix:/a;b"}, "no address"),
        ({"identity": "unix:/a$b"}, "no address"),
    ],
)
def test_refused(changes: dict[str, object], said: str) -> None:
    good: dict[str, object] = {"generation": 1, "share": 0.5, "stable": STABLE, "candidate": CANDIDATE}
    Plan(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said.replace(".", r"\.").replace("[", r"\[")):
        Plan(**(good | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ['/a"b', "/a$b", "/a\nb", "/a{b", "/a\\b", "/a;b", "/ä"])
def test_folders_that_nginx_would_read_otherwise(name: str) -> None:
    check_folder(Path("/srv/my releases/digits-2026.1"))
    with pytest.raises(ValueError, match="a front cannot be told"):
        check_folder(Path(name))


def test_addresses_to_listen_on() -> None:
    assert listen("::", 80) == "[::]:80" and listen("0.0.0.0", 80) == "0.0.0.0:80"
    with pytest.raises(ValueError, match=r"routing\.address: 'here; x' is no address"):
        listen("here; x", 80)


@pytest.mark.parametrize("text", [None, "", "short", "z" * 32, '"; } # ' + "0" * 32])
def test_a_salt_that_is_none(tmp_path: Path, text: str | None) -> None:
    layout = Layout(tmp_path)
    if text is not None:
        layout.salt.write_text(text)
        layout.salt.chmod(0o600)
    front = NginxFront(layout, Routing(), Limits(), program="nginx")
    with pytest.raises(ValueError, match="salt"):
        front.render(Plan(1, 0.0, STABLE))


def test_what_is_rendered(tmp_path: Path) -> None:
    """No 0%, which nginx refuses; 100% leaves no hash out; a share of 0.01% is one."""
    layout = Layout(tmp_path)
    layout.salt.write_text("0" * 32)
    layout.salt.chmod(0o600)
    front = NginxFront(layout, Routing(testers=["a", "*"]), Limits(), program="nginx")
    blocks = {}
    for share in (0.0, 0.0001, 0.25, 1.0):
        text = front.render(Plan(1, share, STABLE, CANDIDATE))
        begin = text.index("split_clients")
        blocks[share] = text[begin : text.index("}", begin)].split("{")[1].split()
        for what, milliseconds in (("connect", 1000), ("send", 5000), ("read", 5000)):
            assert f"proxy_{what}_timeout {milliseconds}ms;" in text, (
                "half of a request's 10 s, so that two fit"
            )
    assert blocks == {
        0.0: ["*", "stable;"],
        0.0001: ["0.01%", "candidate;", "*", "stable;"],
        0.25: ["25.00%", "candidate;", "*", "stable;"],
        1.0: ["*", "candidate;"],
    }


def test_a_change_is_there_when_new_connections_get_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker of the new generation may answer beside others of the one before."""
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    front = PythonFront(Layout(tmp_path), Routing(), Limits())
    said = iter([1, None, 2, 1, *[2] * 7, 1, *[2] * 9])
    monkeypatch.setattr(
        front,
        "confirm",
        lambda _: None if (number := next(said)) is None else Standing(number, 0.5, False, 1),
    )
    front._await(2)
    assert list(said) == [2], "eight in a row"
