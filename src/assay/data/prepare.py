"""Preparing a data set: read from its source, divided, checked, written whole or not at all."""

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from assay.config.schema import Data
from assay.data.divide import divide, groups_of
from assay.data.sources import load
from assay.data.sources.base import ArrayPart, DataError, Part, Source, Subset
from assay.data.store import (
    MANIFEST,
    SPLITS,
    Manifest,
    SplitName,
    SplitSummary,
    images_path,
    labels_path,
    split_sha256,
)
from assay.data.write import Written, pixel_digests, write_split
from assay.records import write_atomically


def prepare(settings: Data, folder: Path, *, module_roots: Sequence[Path]) -> Manifest:
    """Write the store of a data set to `folder`; an older store there is replaced.

    Raises: DataError naming the file, setting or image and what to do instead.
    """
    source = load(settings, module_roots)
    _check_source(source, settings)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _check_space(source, partial)
        warnings = list(source.warnings)
        parts = _complete(source, settings, partial, warnings)
        _check_classes(parts, source.classes, warnings)
        written = {split: write_split(partial, split, parts[split]) for split in SPLITS}
        _check_overlap(written, source, warnings)
        manifest = _manifest(settings, source, written, partial, warnings)
        _publish(partial, folder, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _check_source(source: Source, settings: Data) -> None:
    """Number of classes, labels in range, equal shapes, nothing empty."""
    if len(source.classes) < 2:
        raise DataError(f"data.source {settings.source}: {len(source.classes)} class; two or more are needed")
    if len(set(source.classes)) < len(source.classes):
        raise DataError(f"data.source {settings.source}: two classes have one name: {source.classes}")
    shapes = {part.shape for part in source.parts.values()}
    if len(shapes) > 1:
        raise DataError(f"data.source {settings.source}: splits' images differ in shape: {sorted(shapes)}")
    for split, part in source.parts.items():
        if len(part.labels) == 0:
            raise DataError(f"data.source {settings.source}: split {split!r} is empty")
        outside = np.flatnonzero((part.labels < 0) | (part.labels >= len(source.classes)))
        if len(outside):
            raise DataError(
                f"{part.name(int(outside[0]))}: label {part.labels[outside[0]]} is out of range; "
                f"labels go from 0 to {len(source.classes) - 1}"
            )


def _check_space(source: Source, folder: Path) -> None:
    """Refuse before the work, not after it."""
    count = sum(len(part.labels) for part in source.parts.values())
    copies = 1 if source.in_memory or len(source.parts) == len(SPLITS) else 2
    needed = copies * count * int(np.prod(source.parts["train"].shape))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder.parent}: {needed >> 20} MiB are needed and {free >> 20} MiB are free")


def _complete(source: Source, settings: Data, partial: Path, warnings: list[str]) -> dict[SplitName, Part]:
    """The three splits: the source's own, and those that it lacks taken from its training images."""
    parts = dict(source.parts)
    fractions = {"test": settings.test, "validation": settings.validation}
    lacking: list[SplitName] = [split for split in ("test", "validation") if split not in parts]
    if not lacking:
        return parts
    pool = parts["train"]
    if isinstance(pool, ArrayPart):
        digests = np.concatenate(
            [
                pixel_digests(np.ascontiguousarray(block))
                for block in np.array_split(pool.images, 1 + len(pool.labels) // 4096)
            ]
        )
    else:
        digests = write_split(partial, "pool", pool).digests
        pixels = np.load(images_path(partial, "pool"), mmap_mode="r")
        pool = ArrayPart(pixels, pool.labels, "train", pool.name)
    groups = groups_of(digests)
    _note_copies(groups, pool, warnings)
    held, rest = divide(pool.labels, groups, [fractions[split] for split in lacking], settings.split_seed)
    for split, indices in zip(lacking, held, strict=True):
        if len(indices) == 0:
            raise DataError(f"data.{split}: no image is left for this split; add images")
        parts[split] = Subset(pool, indices)
    parts["train"] = Subset(pool, rest)
    return parts


def _note_copies(groups: np.ndarray, pool: Part, warnings: list[str]) -> None:
    copies = np.flatnonzero(groups != np.arange(len(groups)))
    if len(copies):
        example = f"{pool.name(int(copies[0]))} is {pool.name(int(groups[copies[0]]))}"
        warnings.append(
            f"{len(copies)} images are copies of another and were kept in its split, e.g. {example}"
        )
    conflicting = copies[pool.labels[copies] != pool.labels[groups[copies]]]
    if len(conflicting):
        first = int(conflicting[0])
        example = f"{pool.name(first)} and {pool.name(int(groups[first]))}"
        warnings.append(f"{len(conflicting)} copies have another label than their original, e.g. {example}")


def _check_classes(parts: Mapping[SplitName, Part], classes: list[str], warnings: list[str]) -> None:
    """Every class is learnt; one that is never tested is worth a warning."""
    for split in SPLITS:
        counts = np.bincount(parts[split].labels, minlength=len(classes))
        missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
        if missing and split == "train":
            raise DataError(f"class {missing[0]!r} has no training image; add some or remove the class")
        if missing:
            warnings.append(f"{len(missing)} classes have no {split} image, e.g. {missing[0]!r}")


def _check_overlap(written: Mapping[SplitName, Written], source: Source, warnings: list[str]) -> None:
    """The same pixels in two splits: a leak, refused unless the splits are published ones."""
    for (first, one), (second, other) in combinations(written.items(), 2):
        shared = np.isin(other.digests, one.digests)
        if not shared.any():
            continue
        place = int(np.flatnonzero(shared)[0])
        twin = int(np.flatnonzero(one.digests == other.digests[place])[0])
        text = (
            f"{int(shared.sum())} images of {second} are also in {first}, "
            f"e.g. {other.part.name(place)} is {one.part.name(twin)}"
        )
        if not source.published:
            raise DataError(f"{text}; remove them from one of the two")
        warnings.append(text)


def _manifest(
    settings: Data, source: Source, written: Mapping[SplitName, Written], folder: Path, warnings: list[str]
) -> Manifest:
    mean, std = written["train"].moments()
    return Manifest(
        source=settings.source,
        image_shape=written["train"].part.shape,
        classes=source.classes,
        mean=mean,
        std=std,
        splits={
            split: SplitSummary(
                count=len(one.part.labels),
                sha256=split_sha256(folder, split),
                class_counts=np.bincount(one.part.labels, minlength=len(source.classes)).tolist(),
            )
            for split, one in written.items()
        },
        sources=source.checksums(),
        warnings=warnings,
    )


def _publish(partial: Path, folder: Path, manifest: Manifest) -> None:
    """The manifest goes first and comes back last: while it is absent, there is no store."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for split in SPLITS:
        for path in (images_path(partial, split), labels_path(partial, split)):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(folder / path.name)
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
