"""Dividing, checking and writing, on digits and on a user's own functions."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from assay.config.schema import Data
from assay.data.divide import divide, groups_of
from assay.data.prepare import prepare
from assay.data.sources import load
from assay.data.sources.base import DataError
from assay.data.store import SPLITS, Manifest, open_store
from assay.data.write import pixel_digests

_numbers = itertools.count()


def user(tmp_path: Path, body: str, **settings) -> Manifest:
    """Prepare the data that a function with this body returns; `images(n)` makes n different images."""
    name = f"own_data_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def images(count, seed=0, shape=(6, 6, 3)):\n"
        "    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)\n"
        "def load(**options):\n" + "\n".join(f"    {line}" for line in body.splitlines()) + "\n"
    )
    return prepare(Data(source=f"{name}:load", **settings), tmp_path / "data", module_roots=[tmp_path])


def test_digits_are_scikit_learns(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    expected = load_digits()
    part = load(Data(source="digits"), []).parts["train"]
    images = part.read(np.arange(len(part.labels)))
    np.testing.assert_array_equal(images[..., 0], np.rint(expected.images * 255 / 16))
    np.testing.assert_array_equal(part.labels, expected.target)


def test_splits_are_disjoint_complete_and_stratified(tmp_path: Path) -> None:
    manifest = prepare(Data(source="digits"), tmp_path, module_roots=[])
    store = open_store(tmp_path)
    digests = np.concatenate([pixel_digests(np.array(store.split(name).images)) for name in SPLITS])
    assert len(digests) == 1797 == sum(summary.count for summary in manifest.splits.values())
    assert len(np.unique(digests)) == len(digests)
    totals = sum(np.array(manifest.splits[name].class_counts) for name in SPLITS)
    np.testing.assert_allclose(manifest.splits["test"].class_counts, totals * 0.25, atol=0.51)
    np.testing.assert_allclose(manifest.splits["validation"].class_counts, totals * 0.75 * 0.15, atol=1)
    for name in SPLITS:
        counted = np.bincount(store.split(name).labels, minlength=10)
        assert counted.tolist() == manifest.splits[name].class_counts


def test_mean_and_std_are_those_of_the_training_images_alone(tmp_path: Path) -> None:
    manifest = user(tmp_path, "return images(60), np.arange(60) % 3")
    train = open_store(tmp_path / "data").split("train").images / 255
    np.testing.assert_allclose(manifest.mean, train.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(manifest.std, train.std((0, 1, 2)), rtol=1e-9)


def test_preparing_again_gives_the_same_bytes_and_another_seed_another_split(tmp_path: Path) -> None:
    contents = []
    for number, seed in enumerate((0, 0, 1)):
        prepare(Data(source="digits", split_seed=seed), tmp_path / str(number), module_roots=[])
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / str(number)).iterdir())})
    assert contents[0] == contents[1] != contents[2]
    assert set(contents[0]) == {
        "manifest.json",
        *(f"{s}.{k}.npy" for s in SPLITS for k in ("images", "labels")),
    }


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    manifest = user(
        tmp_path, "x = np.repeat(images(40), 3, axis=0)\nreturn x, np.repeat(np.arange(40) % 2, 3)"
    )
    store = open_store(tmp_path / "data")
    sets = [set(pixel_digests(np.array(store.split(name).images)).tolist()) for name in SPLITS]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert sum(summary.count for summary in manifest.splits.values()) == 120
    assert any("80 images are copies" in warning for warning in manifest.warnings)


def test_copies_under_two_labels_are_reported(tmp_path: Path) -> None:
    manifest = user(tmp_path, "x = images(40)\nx[1] = x[0]\nreturn x, np.arange(40) % 2")
    assert any("1 copies have another label" in warning for warning in manifest.warnings)


def test_divide_leaves_every_class_in_training() -> None:
    labels = np.array([0] * 50 + [1] * 2 + [2])
    held, rest = divide(labels, np.arange(53), [0.25, 0.15], seed=0)
    assert set(labels[rest]) == {0, 1, 2}
    assert sorted(np.concatenate([*held, rest])) == list(range(53))
    assert (labels[held[0]] == 0).sum() == 12


def test_groups_name_the_first_copy() -> None:
    digests = pixel_digests(np.array([5, 3, 5, 3, 9], np.uint8).reshape(5, 1, 1, 1))
    assert groups_of(digests).tolist() == [0, 1, 0, 1, 4]


def test_own_splits_are_kept(tmp_path: Path) -> None:
    manifest = user(
        tmp_path,
        "y = np.arange(30) % 3\n"
        "return {'train': (images(30), y), 'test': (images(30, 1), y), 'classes': ['a', 'b', 'c']}",
    )
    assert manifest.classes == ["a", "b", "c"]
    assert manifest.splits["test"].count == 30
    assert manifest.splits["train"].count + manifest.splits["validation"].count == 30


def test_options_path_and_size_reach_the_function(tmp_path: Path) -> None:
    manifest = user(
        tmp_path,
        "n, path = options['n'], options['path']\n"
        "assert path.name == 'here'\n"
        "return images(n, shape=(10, 14)), np.arange(n) % 2",
        options={"n": 44},
        path="here",
        image_size=5,
    )
    assert manifest.image_shape == (5, 5, 1)
    assert sum(summary.count for summary in manifest.splits.values()) == 44
    assert list(manifest.sources) == [f"own_data_{next(_numbers) - 1}.py"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return images(20), np.zeros(20, int)", "1 class"),
        ("return images(20) / 255, np.arange(20) % 2", "float64.*uint8"),
        ("return images(20).tolist(), np.arange(20) % 2", "list.*uint8"),
        ("return images(20, shape=(3, 9, 9)), np.arange(20) % 2", "channels first.*transpose"),
        ("return images(20, shape=(3,)), np.arange(20) % 2", r"\[20, 3\]"),
        ("return images(20), np.arange(19) % 2", "one integer per image"),
        ("return images(20), np.arange(20) % 2 / 1.0", "one integer per image"),
        ("return images(20), np.arange(20) % 3 - 1", "label -1 is out of range"),
        ("return images(20), np.arange(20) % 3, ['a', 'b']", "label 2 is out of range"),
        ("return images(20), np.arange(20) % 2, ['a', 'b', 'c']", "class 'c' has no training image"),
        ("return images(20), np.arange(20) % 2, ['a', 'a']", "one name"),
        ("return images(0), np.arange(0)", "class|empty"),
        (
            "y = np.arange(20) % 2\nreturn {'train': (images(20), y), 'test': (images(0), y[:0])}",
            "'test' is empty",
        ),
        (
            "y = np.arange(20) % 2\nreturn {'train': (images(20), y), 'test': (images(20), y)}",
            "images of test are also in train, e.g. .*test image 0 is .*train image 0; remove",
        ),
        ("y = np.arange(20) % 2\nreturn {'train': (images(20), y), 'dev': (images(20), y)}", "'dev'"),
        (
            "y = np.arange(20) % 2\nreturn {'train': (images(20), y), 'test': (images(20, 1, (6, 6)), y)}",
            "differ in shape",
        ),
        ("return images(2), np.arange(2)", "no image is left"),
        ("return None", "returned NoneType"),
        ("return {'train': images(20)}", "not a pair"),
    ],
)
def test_unusable_data_are_refused_and_leave_nothing(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        user(tmp_path, body)
    assert not list((tmp_path / "data").glob("*")) if (tmp_path / "data").exists() else True


def test_a_failed_preparation_keeps_the_older_store(tmp_path: Path) -> None:
    user(tmp_path, "return images(40), np.arange(40) % 2")
    before = (tmp_path / "data" / "manifest.json").read_bytes()
    with pytest.raises(DataError):
        user(tmp_path, "y = np.arange(20) % 2\nreturn {'train': (images(20), y), 'test': (images(20), y)}")
    open_store(tmp_path / "data").verify()
    assert (tmp_path / "data" / "manifest.json").read_bytes() == before


def test_remains_of_a_killed_preparation_are_removed(tmp_path: Path) -> None:
    (tmp_path / "data" / ".partial").mkdir(parents=True)
    (tmp_path / "data" / ".partial" / "train.images.npy").write_bytes(b"half")
    user(tmp_path, "return images(40), np.arange(40) % 2")
    assert not (tmp_path / "data" / ".partial").exists()
    open_store(tmp_path / "data").verify()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:load", "no module 'no_such_module'"),
        ("own_one:nothing", "no function 'nothing'"),
        ("json:load", "another module 'json' is loaded, from .*rename"),
    ],
)
def test_a_missing_function_is_named(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "own_one.py").write_text("def load(n): return None\n")
    with pytest.raises(DataError, match=message):
        prepare(Data(source=source), tmp_path / "data", module_roots=[tmp_path])


def test_options_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "own_two.py").write_text("def load(n): return None\n")
    with pytest.raises(DataError, match=r"data.options.*\(n\)"):
        prepare(Data(source="own_two:load", options={"m": 1}), tmp_path / "data", module_roots=[tmp_path])
    with pytest.raises(DataError, match="digits takes none"):
        prepare(Data(source="digits", options={"m": 1}), tmp_path / "data", module_roots=[])


def test_a_full_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match="MiB are needed"):
        prepare(Data(source="digits"), tmp_path, module_roots=[])
