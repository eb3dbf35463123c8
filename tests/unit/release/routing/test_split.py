"""The split in Python: MurmurHash2 as nginx has it, shares that grow, and who is asked to have what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.release.routing.split import UNITS, Choice, Split, in_candidate, murmur2, units
from assay.release.security.salt import user_digest

SALT = "00112233445566778899aabbccddeeff"
SHARES = [0.0, 0.0001, 0.01, 0.1, 0.5, 0.9999, 1.0]


@pytest.mark.parametrize(
    ("text", "value"),
    # As nginx has them: test_routing_nginx.py asks it for 100,000 users of every length modulo 4.
    [("", 0), ("a", 0x92685F5E), ("ab", 0x1AA14063), ("abc", 0x13577C9B), ("abcd", 0x26873021)],
)
def test_the_hash(text: str, value: int) -> None:
    assert murmur2(text.encode()) == value


@given(st.text(alphabet="0123456789abcdef", min_size=1, max_size=40))
def test_whoever_has_the_candidate_keeps_it_while_the_share_grows(user: str) -> None:
    had = [in_candidate(SALT, user, share) for share in SHARES]
    assert had == sorted(had) and had[-1] and not had[0]


def test_shares_are_what_they_say_and_salts_choose_other_users() -> None:
    users = [user_digest(SALT.encode(), str(number)) for number in range(4000)]
    chosen = {user for user in users if in_candidate(SALT, user, 0.1)}
    others = {user for user in users if in_candidate(SALT[::-1], user, 0.1)}
    assert 300 < len(chosen) < 500 and 300 < len(others) < 500
    assert len(chosen & others) < 100


def test_nobody_in_particular_has_stable() -> None:
    assert not in_candidate(SALT, "", 1.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, 0.00001, float("nan")])
def test_a_share_that_nginx_cannot_hold_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share .*write"):
        units(share)


def test_a_share_is_counted_to_the_nearest_hundredth_of_a_percent() -> None:
    assert [units(count / UNITS) for count in range(UNITS + 1)] == list(range(UNITS + 1))


def test_who_may_choose() -> None:
    split = Split(SALT, 1.0, early=frozenset(["e"]), testers=frozenset(["7"]))
    assert split.choose("7", "stable") == Choice("stable", "header")
    assert split.choose("8", "stable") == Choice("candidate", "split")
    assert split.choose("e") == Choice("candidate", "early")
    assert split.choose("") == Choice("stable", "anonymous")
    assert split.choose("", "candidate") == Choice("stable", "anonymous")
    assert Split(SALT, 0.0, any_tester=True).choose("", "candidate") == Choice("candidate", "header")
    assert Split(SALT, 0.0, early=frozenset(["e"]), candidate=False).choose("e") == Choice("stable", "early")
