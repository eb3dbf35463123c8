"""What a body may be: simdjson and orjson agree on everything, and every refusal says what to write instead."""

import random

import numpy as np
import orjson
import pytest

from assay.release.server.inputs import JSON, RAW, Inputs, Parser
from assay.release.server.refusals import RefusedRequest

SHAPE = (2, 3, 2)
SIZE = 12
FAST, SLOW = Inputs(SHAPE, 4), Inputs(SHAPE, 4, fast=False)
FLAT = list(range(SIZE))
NESTED = np.arange(SIZE).reshape(SHAPE).tolist()


def outcome(inputs, body, kind=JSON):
    try:
        found = inputs.read(kind, body)
    except RefusedRequest as refused:
        return refused.status, refused.code, str(refused)
    assert found.dtype == np.float32 and found.shape[1:] == SHAPE
    return found.tobytes()


def body(*samples, **more):
    return orjson.dumps({"inputs": list(samples)} | more)


ACCEPTED = [
    body(FLAT),
    body(NESTED),
    body(FLAT, NESTED, FLAT),
    body([0.1, 255.0, 1e-320, 5e-324, 254.99999999999997, *range(7)]),
    b' { "inputs" : [ [ 1 , 2,3,4,5,6,7,8,9,1e1,1.1E1,-0 ] ] } ',
    b'{"inputs":[[1,2,3,4,5,6,7,8,9,10,11,1]],"inputs":[[1,2,3,4,5,6,7,8,9,10,11,12]]}',
]
REFUSED = {
    b"": "json",
    b"{": "json",
    b"[1]": "json",
    b"null": "json",
    b'{"input":[]}': "json",
    b'\xef\xbb\xbf{"inputs":[]}': "json",
    b'{"inputs":[[NaN]]}': "json",
    b'{"inputs":[[1e400]]}': "json",
    b'{"inputs":[[1,]]}': "json",
    b"\xff\xfe{}": "json",
    body(FLAT, other=1): "json",
    body(FLAT) + b"x": "json",
    body(): "shape",
    b'{"inputs":{}}': "shape",
    b'{"inputs":null}': "shape",
    b'{"inputs":"[[[["}': "shape",
    body(1): "shape",
    body([]): "shape",
    body(FLAT[1:]): "shape",
    body(FLAT, [*FLAT, 1]): "shape",
    body([*FLAT[1:], [], 1]): "shape",
    body([[1, 2], [], *FLAT[2:]]): "shape",
    body(NESTED[0]): "shape",
    body([NESTED[0], NESTED[0][:2]]): "shape",
    body([*FLAT[1:], True]): "number",
    body([*FLAT[1:], None]): "number",
    body([*FLAT[1:], "1"]): "number",
    body([*FLAT[1:], [1]]): "number",
    body([*FLAT[1:], {}]): "number",
    body([*FLAT[1:], 256]): "range",
    body([*FLAT[1:], 255.00001]): "range",
    body([*FLAT[1:], -1e-300]): "range",
    body(NESTED, [*FLAT[1:], 18446744073709551615]): "range",
    b'{"inputs":[[1,2,3,4,5,6,7,8,9,10,11,123456789012345678901234567890]]}': "range",
    body(*[FLAT] * 5): "samples",
}


@pytest.mark.skipif(Parser is None, reason="simdjson is not made for this Python")
def test_flat_samples_go_the_fast_way():
    assert FAST._read_fast(body(FLAT, FLAT)) is not None
    assert FAST._read_fast(body(NESTED)) is None


@pytest.mark.parametrize("given", ACCEPTED)
def test_what_is_accepted_is_the_same_bits_both_ways(given):
    expected = np.asarray([np.ravel(sample) for sample in orjson.loads(given)["inputs"]], np.float64).astype(
        np.float32
    )
    assert outcome(FAST, given) == outcome(SLOW, given) == expected.tobytes()


@pytest.mark.parametrize(("given", "code"), REFUSED.items())
def test_what_is_refused_is_refused_both_ways_and_says_why(given, code):
    assert outcome(FAST, given) == outcome(SLOW, given)
    status, found, reason = outcome(FAST, given)
    assert found == code and 400 <= status < 500 and len(reason) < 500
    if code != "samples":
        assert "write" in reason or "do not normalise" in reason


def test_both_ways_agree_on_bodies_that_were_spoiled_at_random():
    draw = random.Random(1)
    good = [bytearray(body(FLAT, NESTED)), bytearray(body([1.5] * SIZE, FLAT))]
    accepted = 0
    for _ in range(3000):
        spoiled = bytearray(draw.choice(good))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(spoiled))
            match draw.randrange(3):
                case 0:
                    del spoiled[place]
                case 1:
                    spoiled[place] = draw.choice(b'[]{},:."0123456789-eEtn \x00\xff')
                case _:
                    spoiled.insert(place, draw.choice(b'[]{},"0123456789.'))
        found = outcome(FAST, bytes(spoiled))
        assert found == outcome(SLOW, bytes(spoiled)), bytes(spoiled)
        accepted += isinstance(found, bytes)
    assert 100 < accepted < 2900, "both kinds occur"


def test_raw_bodies():
    values = np.arange(2 * SIZE, dtype="<f4")
    assert outcome(FAST, values.tobytes(), RAW) == values.tobytes()
    assert outcome(FAST, b"", RAW)[1] == outcome(FAST, values.tobytes()[:-1], RAW)[1] == "shape"
    assert outcome(FAST, np.zeros(5 * SIZE, "<f4").tobytes(), RAW)[:2] == (413, "samples")
    for wrong in (np.nan, np.inf, -np.inf, -1, 256):
        values[SIZE + 3] = wrong
        status, code, reason = outcome(FAST, values.tobytes(), RAW)
        assert (status, code) == (422, "range") and "inputs[1]" in reason and "value 3" in reason


def test_content_types():
    given = body(FLAT)
    assert isinstance(outcome(FAST, given, b"Application/JSON; charset=utf-8"), bytes)
    for kind in (b"", b"text/plain", b"\xff"):
        status, code, reason = outcome(FAST, given, kind)
        assert (status, code) == (415, "content_type") and "write application/json" in reason
