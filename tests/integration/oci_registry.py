"""A real registry on this machine, and a small Debian with Python to put into it."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Self

from ports import free_port

PACKAGES = {
    "apptainer": "apptainer",
    "docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
MISSING: list[str] = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
"""The Debian packages to install before images can be built from a registry."""

INCLUDED = "python3,python3-venv,ca-certificates,openssh-server"
START_SECONDS = 120.0


class Registry:
    """Serves images on a free port of this machine until it is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "registry.json"
        settings.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}},
                    "http": {"addr": self.address},
                }
            )
        )
        log = (self.folder / "registry.log").open("w")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(settings)], stdout=log, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self.folder / "registry.log").read_text())
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=120)

    def push(self, layout: Path, name: str, tag: str) -> str:
        """Put an image of an OCI layout into the registry; gives its digest."""
        digest = self.folder / "digest"
        source, target = f"oci:{layout}:{tag}", f"docker://{self.address}/{name}:{tag}"
        options = ["--quiet", "--dest-tls-verify=false", "--digestfile", str(digest)]
        subprocess.run(["skopeo", "copy", *options, source, target], check=True)
        return digest.read_text().strip()


def base_layout(folder: Path, tag: str) -> Path:
    """An OCI layout with the smallest Debian that has Python, of this machine's own release and package sources."""
    layout = folder / "layout"
    sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt").glob("sources.list")]
    debian = [str(path) for path in sources if "debian" in path.read_text()]
    suite = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )["VERSION_CODENAME"]
    tar = folder / "base.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}", suite, str(tar)]
    subprocess.run([*command, *debian], check=True, env=os.environ | {"SOURCE_DATE_EPOCH": "0"})
    subprocess.run(["umoci", "init", "--layout", str(layout)], check=True)
    subprocess.run(["umoci", "new", "--image", f"{layout}:{tag}"], check=True)
    subprocess.run(["umoci", "raw", "add-layer", "--image", f"{layout}:{tag}", str(tar)], check=True)
    tar.unlink()
    return layout
