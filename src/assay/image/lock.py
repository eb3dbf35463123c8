"""The image lock: base tag → base digest → SIF sha256 → installed packages."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from assay.records import Typed


class ImageError(ValueError):
    """An image that is not what its lock says, or that cannot be had."""


class ImageLock(Typed):
    """What an image is made from and what is in it."""

    schema_version: Literal[1] = 1
    name: str
    base_name: str
    base_tag: str | None
    base_digest: str
    recipe_sha256: str = Field(
        description="Over base and all files that decide the content; in the name too."
    )
    locks_sha256: dict[str, str] = Field(description="SHA-256 of each requirements file.")
    sif_sha256: str
    sif_bytes: int
    content_sha256: str = Field(description="Over paths, kinds, modes and bytes of all files in the image.")
    content_files: int
    python: str
    packages: dict[str, str] = Field(description="Python distributions with versions.")
    system_packages: dict[str, str] = Field(description="Packages of the base's own package manager.")
    built: str
    built_with: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: ImageError naming the file."""
        return cls.parse(
            path,
            "no such image lock; build the image: assay image build",
            "remove the folder and build the image again",
            ImageError,
        )
