"""Behind other proxies: both fronts take the same address for the client's, and their limits go by it."""

import http.client
import ipaddress
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fronted import PATIENCE, Fronted
from test_routing import KINDS

from assay.release.routing.forwarded import client
from assay.release.routing.front import Front
from assay.release.schema import Limits

pytestmark = pytest.mark.integration
TRUSTED = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]
NETWORKS = [ipaddress.ip_network(text) for text in TRUSTED]
SAID = [
    [],
    [""],
    ["198.51.100.9"],
    ["1.1.1.1, 198.51.100.9"],
    ["1.1.1.1", "198.51.100.9,10.1.2.3", "10.0.0.1"],
    ["10.0.0.3, 10.0.0.2"],
    ["198.51.100.9, unknown, 10.0.0.2"],
    ["198.51.100.9", ""],
    [",198.51.100.9"],
    [", 198.51.100.9"],
    ["198.51.100.9,,10.0.0.1 , "],
    ["[2001:DB8::1]:443, fd00::1"],
    ["2001:db8::1,[fd00::1]"],
    ["198.51.100.9:99999"],
    ["010.0.0.1, 10..1"],
    ["198.51.100.9, 10..1.2"],
    ["::ffff:198.51.100.9, ::ffff:10.0.0.1"],
    ["1:2:3:4:5:6:7::"],
    [":1:2:3:4:5:6:7:8"],
    ["1::2:"],
    ["::ffff:a.1.2.3", "::1.2.3.4"],
    ["fe80::1%eth0, 10.0.0.1"],
]
PIECES = [
    *("10.0.0.1", "10.2", "198.51.100.9", "fd00::1", "2001:db8::7", "::ffff:10.0.0.1", "unknown", "255.255.255.255"),
    *(", ", ",", " ", ":80", ":0", ":", "::", ".", "[", "]", "[fd00::2]", "[10.0.0.1]", "1", "00", "f", "ffff", "%"),
]  # fmt: skip


def random_ones(count: int) -> list[list[str]]:
    drawn = random.Random(4711)
    return [
        ["".join(drawn.choices(PIECES, k=drawn.randint(1, 7))).strip() for _ in range(drawn.randint(1, 3))]
        for _ in range(count)
    ]


@pytest.fixture(scope="module", params=KINDS)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    kind: type[Front] = request.param
    with Fronted(tmp_path_factory.mktemp("behind"), kind, trusted_proxies=TRUSTED) as fronted:
        fronted.front.start(fronted.plan(0.5))
        yield fronted


def asked(connection: http.client.HTTPConnection, said: list[str]) -> tuple[int, str]:
    """Status, and the address that the version was told."""
    connection.putrequest("POST", "/predict")
    for value in said:
        connection.putheader("X-Forwarded-For", value)
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    body = json.loads(answer.read())
    return answer.status, body["headers"]["x-forwarded-for"] if answer.status == 200 else ""


def test_the_client_is_whom_the_trusted_proxies_name(behind: Fronted) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", behind.routing.port, timeout=PATIENCE)
    expected, found = {}, {}  # as addresses: nginx writes some of IPv6 in another way
    for said in SAID + random_ones(300):
        key = " | ".join(said)
        address = client("127.0.0.1", [value.encode() for value in said], NETWORKS)
        expected[key] = ipaddress.ip_address(address)
        found[key] = ipaddress.ip_address(asked(connection, said)[1])
    connection.close()
    assert found == expected
    assert len(set(found.values())) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_limits_go_by_the_client_and_nobody_forges_one(kind: type[Front], tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=30, per_address=2)

    def statuses(folder: str, trusted: list[str], say: str) -> set[int]:
        (tmp_path / folder).mkdir()
        with Fronted(tmp_path / folder, kind, limits, trusted_proxies=trusted) as fronted:
            fronted.front.start(fronted.plan(0.0))
            connection = http.client.HTTPConnection("127.0.0.1", fronted.routing.port, timeout=PATIENCE)
            found = {asked(connection, [say.format(number)])[0] for number in range(60)}
            connection.close()
            return found

    assert statuses("each", ["127.0.0.1"], "10.0.0.{}") == {200}
    assert statuses("forged", ["127.0.0.1"], "10.0.0.{}, 192.0.2.7") == {200, 429}
    assert statuses("stranger", ["192.0.2.0/24"], "10.0.0.{}") == {200, 429}
