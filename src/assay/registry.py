"""What a registry says of an image: asked through skopeo, where it is installed."""

import os
import shutil
import subprocess

SECONDS = 10.0
"""Patience with a registry."""


def digest_of(name: str, tag: str) -> str | None:
    """The digest that a tag stands for now; None where nobody can be asked.

    `APPTAINER_NOHTTPS` holds here as it does for Apptainer: a registry without TLS, as on this machine.
    """
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        return None
    plain = ["--tls-verify=false"] if os.environ.get("APPTAINER_NOHTTPS") else []
    command = [skopeo, "inspect", *plain, "--no-tags", "--format", "{{.Digest}}", f"docker://{name}:{tag}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
