"""From a request's body to an array, or to a refusal that says what to write instead.

A JSON body is first tried with simdjson, which writes flat samples straight into an array. Whatever it is not certain of goes to
orjson, whose answer is the one that counts: both accept and refuse the same bodies and give the same bits.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from assay.release.server.refusals import RefusedRequest

try:
    from simdjson import Parser
except ImportError:  # not made for every Python
    Parser = None  # type: ignore[assignment, misc]

Samples = NDArray[np.float32]
JSON, RAW = b"application/json", b"application/octet-stream"
LOW, HIGH = 0, 255


class Inputs:
    """Reads the bodies that one bundle's model takes.

    shape: (height, width, channels) of a sample. most: samples in one request. fast: whether simdjson is tried.
    """

    def __init__(self, shape: tuple[int, int, int], most: int, *, fast: bool = True) -> None:
        self.shape = shape
        self.most = most
        self.size = math.prod(shape)
        self._parser: Any = Parser() if fast and Parser is not None else None
        numbers = "×".join(map(str, shape))
        self.example = (
            f'write {{"inputs": [sample, …]}}, a sample being {self.size} numbers from {LOW} to {HIGH}, '
            f"flat or nested {numbers} (rows, columns, channels)"
        )

    def read(self, content_type: bytes, body: bytes) -> Samples:
        """float32 [N, H, W, C]. Raises: RefusedRequest."""
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == JSON:
            found = self._read_fast(body) if self._parser is not None else None
            samples: NDArray[Any] = self._read_json(body) if found is None else found
        elif kind == RAW:
            samples = self._read_raw(body)
        else:
            said = repr(kind.decode("latin-1")) if kind else "missing"
            raise RefusedRequest(
                415,
                "content_type",
                f"Content-Type is {said}; write application/json or application/octet-stream",
            )
        # Written so that NaN is refused: it is neither above nor below.
        if not (samples.min() >= LOW and samples.max() <= HIGH):
            raise self._out_of_range(samples)
        return samples.reshape(-1, *self.shape).astype(np.float32, copy=False)

    def _read_fast(self, body: bytes) -> NDArray[np.float64] | None:
        """float64 [N · H·W·C] where the body certainly is an object of flat samples alone; None: ask `_read_json`."""
        try:
            document = self._parser.parse(body)
            if len(document) != 1:
                return None
            samples = document["inputs"]
            count = len(samples)
            if not 1 <= count <= self.most or any(len(sample) != self.size for sample in samples):
                return None
            # The only key is a constant and every value a number, so each bracket opens a list: none is nested.
            if body.count(b"[") != count + 1:
                return None
            values = np.frombuffer(samples.as_buffer(of_type="d"))
            return values if len(values) == count * self.size else None
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError):
            return None
        finally:
            samples = document = None  # the parser serves one document at a time

    def _read_json(self, body: bytes) -> NDArray[np.float64]:
        """float64 [N · H·W·C]. Raises: RefusedRequest."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RefusedRequest(400, "json", f"the body is not JSON: {error}; {self.example}") from None
        if not isinstance(document, dict) or list(document) != ["inputs"]:
            raise RefusedRequest(
                400,
                "json",
                f"the body is {_said(document)}, not an object with `inputs` alone; {self.example}",
            )
        samples = document["inputs"]
        if not isinstance(samples, list) or not samples:
            raise RefusedRequest(
                422, "shape", f"inputs is {_said(samples)}, not a list of samples; {self.example}"
            )
        self._check_count(len(samples))
        return np.array(
            [value for i, sample in enumerate(samples) for value in self._flat(i, sample)], np.float64
        )

    def _flat(self, place: int, sample: Any) -> list[Any]:
        """The numbers of one sample. Raises: RefusedRequest."""
        wrong = "shape"
        if isinstance(sample, list):
            nested = bool(sample) and isinstance(sample[0], list)
            values = list(self._unnested(sample)) if nested else sample
            if len(values) == self.size:
                if set(map(type, values)) <= {int, float}:
                    return values
                wrong = "number"
        what = (
            next(_said(value) for value in values if type(value) not in (int, float))
            if wrong == "number"
            else _shape(sample)
        )
        raise RefusedRequest(422, wrong, f"inputs[{place}] has {what}; {self.example}")

    def _unnested(self, sample: list[Any]) -> Iterator[Any]:
        """Nothing where lists are not nested as the shape says."""
        height, width, channels = self.shape
        rows = sample if _lists(sample, height) and all(_lists(row, width) for row in sample) else []
        pixels = [pixel for row in rows for pixel in row]
        if all(_lists(pixel, channels) for pixel in pixels):
            yield from (value for pixel in pixels for value in pixel)

    def _read_raw(self, body: bytes) -> Samples:
        """float32 [N · H·W·C]. Raises: RefusedRequest."""
        count, rest = divmod(len(body), 4 * self.size)
        if rest or not count:
            raise RefusedRequest(
                422,
                "shape",
                f"{len(body)} bytes are not whole samples: one is {4 * self.size} bytes, {self.size} "
                "little-endian float32 values, row by row with channels last",
            )
        self._check_count(count)
        return np.frombuffer(body, "<f4")

    def _check_count(self, count: int) -> None:
        if count > self.most:
            raise RefusedRequest(
                413, "samples", f"{count} samples are too many; write {self.most} or fewer in one request"
            )

    def _out_of_range(self, samples: NDArray[Any]) -> RefusedRequest:
        place = int(np.flatnonzero(~((samples >= LOW) & (samples <= HIGH)))[0])
        sample, value = divmod(place, self.size)
        return RefusedRequest(
            422,
            "range",
            f"inputs[{sample}] has {samples[place]:g} as value {value}; values are pixels as stored, "
            f"from {LOW} to {HIGH}: do not normalise them",
        )


def _lists(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _said(value: Any) -> str:
    """What a JSON value is, in a few words."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return f"an object with {', '.join(map(repr, list(value)[:5])) or 'nothing'}"[:100]
        case list():
            return f"a list of {len(value)}"
        case str():
            return f"the text {value[:20]!r}"
    return f"the number {value!r}"


def _shape(sample: Any) -> str:
    if not isinstance(sample, list):
        return f"{_said(sample)} in place of a list"
    lengths: list[str] = []
    inner: Any = sample
    while isinstance(inner, list) and len(lengths) < 4:
        lengths.append(str(len(inner)))
        inner = inner[0] if inner else None
    if len(lengths) == 1:
        return f"{lengths[0]} numbers"
    return f"lists of {'×'.join(lengths)}, or not all alike"
