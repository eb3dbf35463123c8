"""Batches against a slow reference that treats one image at a time, and the promises of pairing."""

import numpy as np
import pytest
import torch

from assay.config.arm import Augmentation
from assay.data import augment as augment_module
from assay.data import batches as batches_module
from assay.data.augment import draw, on_device
from assay.data.batches import Batch, Batches
from assay.data.store import Split

torch.set_num_threads(1)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
ALL = Augmentation(crop_padding=2, horizontal_flip=0.5, random_erasing=0.5, mixup=0.4, cutmix=1.0)


def split(count: int = 40, height: int = 12, width: int = 12, channels: int = 3) -> Split:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return Split(images, random.integers(0, 4, count))


def batches(data: Split | None = None, **options) -> Batches:
    data = data or split()
    channels = data.images.shape[3]
    defaults = {"batch_size": 16, "device": "cpu", "mean": MEAN[:channels], "std": STD[:channels]}
    return Batches(data, **(defaults | options))


def epoch(
    augmentation: Augmentation, seed: int = 1, number: int = 0, first_step: int = 0, **options
) -> list[Batch]:
    return list(batches(**options).epoch(seed, number, augmentation, classes=4, first_step=first_step))


def normalised(image: np.ndarray) -> np.ndarray:
    """[H, W, C] uint8 to [C, H, W]."""
    channels = image.shape[2]
    return ((image / 255 - MEAN[:channels]) / STD[:channels]).transpose(2, 0, 1)


def reference(data: Split, batch: Batch, augmentation: Augmentation, step: int) -> np.ndarray:
    """Flip, crop, normalise and erase, one image and one pixel row at a time."""
    count, height, width = len(batch.indices), *data.images.shape[1:3]
    draws = draw(augmentation, count, height, width, seed=1, epoch=0, step=step)
    result = []
    for row, index in enumerate(batch.indices):
        image = data.images[index]
        if draws.flips is not None and draws.flips[row]:
            image = image[:, ::-1]
        if draws.offsets is not None:
            padding = augmentation.crop_padding
            image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
            top, left = draws.offsets[row]
            image = image[top : top + height, left : left + width]
        pixels = normalised(image)
        if draws.erased is not None:
            top, left, tall, wide = draws.erased[row]
            pixels[:, top : top + tall, left : left + wide] = 0
        result.append(pixels)
    return np.stack(result)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(12, 12, 3), (9, 13, 1), (5, 8, 4)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"horizontal_flip": 0.5},
        {"horizontal_flip": 1.0},
        {"crop_padding": 3},
        {"crop_padding": 2, "horizontal_flip": 0.5, "random_erasing": 0.7},
    ],
)
def test_augmentation_equals_the_slow_reference(settings, shape, channels_last, monkeypatch) -> None:
    monkeypatch.setattr(f"{__name__}.MEAN", [0.4, 0.5, 0.6, 0.3])
    monkeypatch.setattr(f"{__name__}.STD", [0.2, 0.25, 0.3, 0.1])
    data, augmentation = split(40, *shape), Augmentation(**settings)
    made = epoch(augmentation, data=data, channels_last=channels_last)
    assert len(made) == 2
    for step, batch in enumerate(made):
        expected = reference(data, batch, augmentation, step)
        np.testing.assert_allclose(batch.images.numpy(), expected, atol=2e-6)
        assert (batch.labels.numpy() == data.labels[batch.indices]).all()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.images.is_contiguous(memory_format=layout)


def test_the_draws_use_their_whole_range() -> None:
    drawn = draw(Augmentation(crop_padding=2, horizontal_flip=0.25), 4000, 8, 8, seed=0, epoch=0, step=0)
    assert np.unique(drawn.offsets).tolist() == [0, 1, 2, 3, 4]
    assert drawn.flips.mean() == pytest.approx(0.25, abs=0.03)
    drawn = draw(
        Augmentation(resized_crop=(0.25, 0.5), random_erasing=0.5), 4000, 64, 64, seed=0, epoch=0, step=0
    )
    area = drawn.crops[:, 2] * drawn.crops[:, 3] / 64**2
    assert area.min() > 0.23 and area.max() < 0.52
    assert (drawn.crops[:, :2] + drawn.crops[:, 2:]).max() == 64 and drawn.crops.min() == 0
    assert (drawn.erased[:, 2] > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_an_epoch_shows_each_example_once_in_a_new_order() -> None:
    first, second = epoch(Augmentation()), epoch(Augmentation(), number=1)
    seen = np.concatenate([batch.indices for batch in first])
    assert len(seen) == 32 and len(set(seen.tolist())) == 32
    assert not (seen == np.concatenate([batch.indices for batch in second])).all()


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    loader = batches(split(5), batch_size=64)
    assert loader.steps_per_epoch == 1
    [batch] = loader.epoch(0, 0, ALL, classes=4)
    assert sorted(batch.indices) == [0, 1, 2, 3, 4]


def test_sequential_shows_all_in_order_and_unchanged() -> None:
    data = split()
    made = list(batches(data).sequential())
    assert [len(batch.labels) for batch in made] == [16, 16, 8]
    assert np.concatenate([batch.indices for batch in made]).tolist() == list(range(40))
    expected = np.stack([normalised(image) for image in data.images])
    np.testing.assert_allclose(torch.cat([batch.images for batch in made]), expected, atol=2e-6)


def test_digests_do_not_depend_on_the_model() -> None:
    """Image size, memory format, device of the gather, global random state: none of them changes a digest."""
    augmentation = Augmentation(resized_crop=(0.3, 1.0), horizontal_flip=0.5, random_erasing=0.5, cutmix=1.0)
    plain = epoch(augmentation)
    torch.manual_seed(99)
    np.random.seed(99)
    for options in ({"image_size": 24}, {"channels_last": True}, {"resident": False}):
        other = epoch(augmentation, **options)
        assert [batch.digest for batch in plain] == [batch.digest for batch in other]
        for one, two in zip(plain, other, strict=True):
            assert (one.indices == two.indices).all()
            torch.testing.assert_close(one.targets, two.targets)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 2}, {"number": 1}, {"batch_size": 8}, {"augmentation": Augmentation(horizontal_flip=0.1)}],
)
def test_digests_tell_different_batches(changed: dict) -> None:
    plain = epoch(Augmentation(horizontal_flip=0.5))
    other = epoch(**({"augmentation": Augmentation(horizontal_flip=0.5)} | changed))
    assert plain[0].digest != other[0].digest


def test_digests_tell_every_kind_of_draw() -> None:
    kinds = [
        {},
        {"crop_padding": 1},
        {"crop_padding": 2},
        {"resized_crop": (0.5, 1.0)},
        {"horizontal_flip": 0.5},
        {"random_erasing": 0.5},
        {"mixup": 1.0},
        {"cutmix": 1.0},
    ]
    assert len({epoch(Augmentation(**kind))[0].digest for kind in kinds}) == len(kinds)


def test_one_change_does_not_shift_the_draws_of_another() -> None:
    alone = draw(Augmentation(crop_padding=2), 8, 12, 12, seed=1, epoch=0, step=0)
    among = draw(ALL, 8, 12, 12, seed=1, epoch=0, step=0)
    assert (alone.offsets == among.offsets).all()


@pytest.mark.parametrize("resident", [True, False])
def test_resuming_gives_exactly_the_later_batches(resident: bool) -> None:
    whole = epoch(ALL, batch_size=8, resident=resident)
    later = epoch(ALL, batch_size=8, resident=resident, first_step=3)
    assert len(later) == len(whole) - 3
    for one, two in zip(whole[3:], later, strict=True):
        assert one.digest == two.digest
        assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)


def test_batches_made_ahead_are_the_same_in_order_and_own_their_memory() -> None:
    direct, ahead = epoch(ALL, batch_size=4), epoch(ALL, batch_size=4, resident=False)
    for one, two in zip(direct, ahead, strict=True):
        assert one.digest == two.digest and torch.equal(one.images, two.images)


def test_leaving_an_epoch_early_ends_its_thread() -> None:
    import threading

    iterator = batches(batch_size=4, resident=False).epoch(0, 0, ALL, classes=4)
    next(iterator)
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    iterator.close()
    del iterator
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_augmenting_leaves_the_store_untouched() -> None:
    data = split()
    before = data.images.copy()
    epoch(ALL, data=data)
    list(batches(data).sequential())
    assert (data.images == before).all()


@pytest.mark.parametrize("image_size", [7, 12, 20])
def test_resized_crops_equal_crop_then_resize_of_each_image(image_size: int) -> None:
    data, augmentation = split(), Augmentation(resized_crop=(0.2, 1.0), horizontal_flip=0.5)
    batch = epoch(augmentation, data=data, image_size=image_size)[0]
    draws = draw(augmentation, 16, 12, 12, seed=1, epoch=0, step=0)
    for row, index in enumerate(batch.indices):
        image = data.images[index][:, ::-1] if draws.flips[row] else data.images[index]
        top, left, height, width = draws.crops[row]
        box = torch.from_numpy(
            normalised(image[top : top + height, left : left + width])[None].astype(np.float32)
        )
        expected = torch.nn.functional.interpolate(box, (image_size,) * 2, mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(batch.images[row], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("image_size", [6, 24])
def test_other_image_sizes_are_resized_from_the_central_square(image_size: int) -> None:
    data = split(20, 12, 16)
    [*_, batch] = batches(data, image_size=image_size, batch_size=20).sequential()
    square = torch.from_numpy(
        np.stack([normalised(image[:, 2:14]) for image in data.images]).astype(np.float32)
    )
    expected = torch.nn.functional.interpolate(square, (image_size,) * 2, mode="bilinear", antialias=True)
    torch.testing.assert_close(batch.images, expected, atol=1e-5, rtol=0)


def test_targets_mix_as_the_pixels_do() -> None:
    data = Split(np.repeat(np.arange(16, dtype=np.uint8), 64).reshape(16, 8, 8, 1), np.arange(16) % 4)
    for settings in ({"mixup": 1.0}, {"cutmix": 1.0}):
        [batch] = Batches(data, batch_size=16, device="cpu", mean=[0.0], std=[1 / 255]).epoch(
            3, 0, Augmentation(**settings), classes=4
        )
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(16))
        own, other = torch.from_numpy(batch.indices), torch.from_numpy(batch.indices).roll(1)
        weight = (batch.images.mean((1, 2, 3)) - other) / (own - other)
        torch.testing.assert_close(weight, weight[:1].expand(16), atol=1e-4, rtol=0)
        assert 0 < weight[0] < 1
        certain = torch.nn.functional.one_hot(batch.labels, 4).float()
        mixed = weight[:1, None] * certain + (1 - weight[:1, None]) * certain.roll(1, 0)
        torch.testing.assert_close(batch.targets, mixed, atol=1e-4, rtol=0)


def test_mixup_and_cutmix_take_turns() -> None:
    drawn = [draw(ALL, 4, 8, 8, seed=0, epoch=0, step=step) for step in range(200)]
    share = np.mean([one.mixup is not None for one in drawn])
    assert share == pytest.approx(0.5, abs=0.1)
    assert all((one.mixup is None) != (one.cutmix is None) for one in drawn)


def test_a_constant_channel_stays_finite() -> None:
    data = Split(np.full((8, 4, 4, 1), 7, np.uint8), np.arange(8) % 2)
    [batch] = Batches(data, batch_size=8, device="cpu", mean=[7 / 255], std=[0.0]).sequential()
    assert batch.images.abs().max() < 1e-6


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        batches(batch_size=0)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop_padding": 2, "horizontal_flip": 0.5, "random_erasing": 0.7},
        {"resized_crop": [0.3, 1.0]},
        {"mixup": 0.4},
        {"cutmix": 1.0, "horizontal_flip": 0.5},
        {"crop_padding": 2, "horizontal_flip": 0.5, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 1.0},
    ],
)
def test_shares_put_together_are_the_batch_of_one_process(settings: dict[str, object], ranks: int) -> None:
    augmentation = Augmentation(**settings)
    shares = [epoch(augmentation, rank=rank, ranks=ranks) for rank in range(ranks)]
    for number, whole in enumerate(epoch(augmentation)):
        parts = [share[number] for share in shares]
        assert {part.digest for part in parts} == {whole.digest}
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert np.concatenate([part.indices for part in parts]).tolist() == whole.indices.tolist()
        assert (whole.targets is None) == all(part.targets is None for part in parts)
        if whole.targets is not None:
            targets = [part.targets for part in parts if part.targets is not None]
            assert torch.equal(torch.cat(targets), whole.targets)


def test_processes_that_take_turns_see_every_example_once() -> None:
    for count in (1, 5, 40, 41):
        seen = [
            index
            for rank in range(3)
            for batch in batches(split(count), rank=rank, ranks=3).sequential()
            for index in batch.indices
        ]
        assert sorted(seen) == list(range(count))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"training.batch_size: a batch has 10 images .*write `batch_size: 9`"
    ):
        epoch(Augmentation(), data=split(10), ranks=3)


EVERYTHING = [
    Augmentation(resized_crop=(0.3, 1.0), horizontal_flip=0.5, random_erasing=0.5, mixup=0.4, cutmix=1.0),
    ALL,
]


@pytest.mark.parametrize("augmentation", EVERYTHING)
def test_numbers_of_a_step_reach_the_device_one_way_alone(augmentation, monkeypatch) -> None:
    """That way does not wait for a GPU. A copy to the device by any other would wait for it at every step."""
    real, within, others = torch.Tensor.to, [], []

    def to(tensor, *arguments, **options):
        if not within and any(isinstance(one, torch.device) for one in (*arguments, *options.values())):
            others.append(options)
        return real(tensor, *arguments, **options)

    def marked(numbers, device):
        within.append(True)
        try:
            return on_device(numbers, device)
        finally:
            within.pop()

    made = batches(image_size=10)
    monkeypatch.setattr(torch.Tensor, "to", to)
    for module in (augment_module, batches_module):
        monkeypatch.setattr(module, "on_device", marked)
    assert len(list(made.epoch(1, 0, augmentation, classes=4))) == 2
    assert others == [{"non_blocking": True}] * 2, (
        "of each batch's images, where they are staged in pinned memory"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that could be waited for")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("augmentation", EVERYTHING)
def test_no_step_waits_for_the_gpu(augmentation, resident) -> None:
    made = batches(device="cuda", resident=resident, image_size=10)
    list(made.epoch(1, 0, augmentation, classes=4))
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(made.epoch(1, 1, augmentation, classes=4))) == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
