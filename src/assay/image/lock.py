"""The image lock: base tag → base digest → SIF sha256 → installed packages."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from assay.records import Typed, write_atomically


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
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ImageError(f"{path}: no such image lock; build the image: assay image build") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ImageError(
                f"{path}: {where}: {first['msg']}; remove the folder and build the image again"
            ) from None

    def write(self, path: Path) -> None:
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")
