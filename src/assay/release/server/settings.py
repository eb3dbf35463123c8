"""What the processes of one version are started with: one file, written by the supervisor."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.records import Typed
from assay.release.schema import Serving


class Settings(Typed):
    """One group of workers."""

    bundle: Path = Field(description="The bundle's folder.")
    role: Literal["stable", "candidate"] = "stable"
    serving: Serving = Serving()
    cpus: list[int] | None = Field(default=None, description="CPU cores of this version; null: any.")
    salt: Path | None = Field(default=None, description="File that users' identities are hashed with.")
    shared: Path | None = Field(default=None, description="Folder of what workers of both versions share.")
    predictions: Path | None = Field(
        default=None, description="Folder of the prediction log; null: none is kept."
    )
    copies: Path | None = Field(
        default=None, description="Socket that copies of requests are handed to; null: none are."
    )
    drain_seconds: float = Field(
        default=90,
        ge=0,
        description="Longest that a version that is ended waits for its connections to come to rest.",
    )
