"""Whose a request is behind trusted proxies; `tests/integration/test_routing_forwarded.py` asks nginx the same."""

import ipaddress

import pytest

from assay.config.errors import ConfigError
from assay.release.load import from_mapping
from assay.release.routing.forwarded import client

TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "said", "expected"),
    [
        ("192.0.2.1", [b"198.51.100.9"], "192.0.2.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [b"198.51.100.9"], "198.51.100.9"),
        ("127.0.0.1", [b"1.1.1.1, 198.51.100.9"], "198.51.100.9"),
        ("127.0.0.1", [b"198.51.100.9, 10.1.2.3"], "198.51.100.9"),
        ("127.0.0.1", [b"1.1.1.1", b"198.51.100.9,10.1.2.3", b"10.0.0.1"], "198.51.100.9"),
        ("127.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("127.0.0.1", [b"198.51.100.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("127.0.0.1", [b"198.51.100.9, "], "198.51.100.9"),
        ("127.0.0.1", [b"198.51.100.9", b""], "127.0.0.1"),
        ("127.0.0.1", [b"198.51.100.9:4711"], "198.51.100.9"),
        ("127.0.0.1", [b"[2001:DB8:0::1]:443"], "2001:db8::1"),
        ("127.0.0.1", [b"2001:db8::1, fd00::7"], "2001:db8::1"),
        ("127.0.0.1", [b"198.51.100.9:0"], "127.0.0.1"),
        ("127.0.0.1", [b"[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", [b"[2001:db8::1]x"], "127.0.0.1"),
        ("127.0.0.1", [b"[]"], "127.0.0.1"),
        ("127.0.0.1", [b"256.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [b"fe80::1%eth0"], "127.0.0.1"),
        ("127.0.0.1", [b"1:2:3:4:5:6:7:8:9"], "127.0.0.1"),
        ("127.0.0.1", [b"::ffff:10.0.0.1"], "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.1", [b"198.51.100.9"], "198.51.100.9"),
        ("127.0.0.1", [b"\xff" * 9000], "127.0.0.1"),
        ("127.0.0.1", [b"9" * 9000 + b".1.1.1", b"10.0.0.1:" + b"9" * 9000], "127.0.0.1"),
        ("", [b"198.51.100.9"], ""),
    ],
)
def test_the_first_address_from_the_right_that_nobody_trusts_is_the_clients(
    peer: str, said: list[bytes], expected: str
) -> None:
    assert client(peer, said, TRUSTED) == expected


def test_nobody_is_trusted_unless_told() -> None:
    assert client("127.0.0.1", [b"198.51.100.9"], []) == "127.0.0.1"


def test_networks_are_named_or_refused_with_what_to_write() -> None:
    def routed(*trusted: object) -> dict[str, object]:
        routing = {"front": "python", "trusted_proxies": list(trusted)}
        return {"name": "x", "registry": {"model": "x"}, "routing": routing}

    release = from_mapping(routed("10.0.0.0/8", "192.0.2.7", "FD00::0/8"), file="x")
    assert release.routing.trusted_proxies == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]
    for wrong, advice in [
        ("10.0.0.1/8", "write `10.0.0.0/8`"),
        ("proxy.example.org", "write e.g. `10.0.0.0/8`"),
        ("10.0.0.0/8; deny all", "is no address and no network"),
        ("0.0.0.0/0", "every client could forge"),
        ("::/0", "every client could forge"),
        ("::ffff:10.0.0.1", "write an IPv4 address as such"),
        ("fe80::1%eth0", "none with a zone"),
        (17, "should be a valid string"),
    ]:
        with pytest.raises(ConfigError, match="trusted_proxies") as told:
            from_mapping(routed(wrong), file="x")
        assert advice in str(told.value)
