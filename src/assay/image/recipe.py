"""All that decides an image's content, and the name that follows from it."""

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from assay.config.bases import Base
from assay.sources import PACKAGE

CONTAINERS = PACKAGE.parents[1] / "containers"
DEFINITION = "assay.def"
FOLDER_VARIABLE = "ASSAY_IMAGES"
"""Where images are: a folder that several users may share."""


@dataclass(frozen=True)
class Recipe:
    """A base by digest, and the files of `containers/` that are put onto it."""

    base: Base
    containers: Path = CONTAINERS

    @property
    def files(self) -> list[Path]:
        """What the definition copies or runs, the definition included."""
        return sorted(
            path for path in self.containers.iterdir() if path.is_file() and not path.name.startswith(".")
        )

    @property
    def sha256(self) -> str:
        """Over the base's name and digest and over names and contents of the files."""
        digest = sha256(f"{self.base.name}@{self.base.digest}\n".encode())
        for path in self.files:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    @property
    def name(self) -> str:
        words = f"{self.base.name.rpartition('/')[2]}-{self.base.tag or self.base.digest[7:19]}"
        return f"assay-{re.sub('[^a-z0-9.]+', '-', words.lower())}-{self.sha256[:16]}"


@dataclass(frozen=True)
class Place:
    """The files of one image. They appear together, by the rename of their folder."""

    folder: Path
    name: str

    @property
    def sif(self) -> Path:
        return self.folder / f"{self.name}.sif"

    @property
    def lock(self) -> Path:
        return self.folder / "lock.json"

    def exists(self) -> bool:
        return self.lock.exists() and self.sif.exists()


def images() -> Path:
    """The folder of all images: `ASSAY_IMAGES`, or `images` where the workflow runs."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "images")


def place(recipe: Recipe, root: Path | None = None) -> Place:
    """Where an image is or will be."""
    return Place((root or images()) / recipe.name, recipe.name)
