import numpy as np
import pytest

from assay.data.streams import stream, stream_int


def test_a_stream_depends_on_seed_purpose_and_counters_alone() -> None:
    np.random.seed(1)
    first = stream(3, "order", 2).permutation(50)
    np.random.seed(2)
    np.random.random(10)
    assert (stream(3, "order", 2).permutation(50) == first).all()


@pytest.mark.parametrize(
    "other", [(4, "order", 2), (3, "augmentation", 2), (3, "order", 3), (3, "order", 2, 0)]
)
def test_streams_differ(other: tuple) -> None:
    assert stream_int(*other) != stream_int(3, "order", 2)


def test_streams_stay_what_they_were() -> None:
    """Published results hang on these values."""
    assert stream_int(0, "initialisation") == 6651865960453240220
    assert stream(0, "order", 0).permutation(5).tolist() == [0, 4, 3, 2, 1]
