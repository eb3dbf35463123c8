"""Where packages come from while an image is built: what pip is configured for on this machine."""

import configparser
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MOUNT = "/srv"
"""Where the build sees the settings: it is in every base, and empty in the image."""
SCRIPT = "index.sh"
_CERTIFICATES = "certificates.pem"
_VARIABLES = {
    "index-url": ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    "trusted-host": ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST"),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
}


@contextmanager
def mounted() -> Iterator[str]:
    """What to mount at build: a folder with a script of settings, and the certificates that it names."""
    with TemporaryDirectory(prefix="assay-index-") as name:
        folder = Path(name)
        settings = pip_settings()
        lines = [
            f"export {variable}={shlex.quote(settings[key])}"
            for key, variables in _VARIABLES.items()
            if settings.get(key)
            for variable in variables
        ]
        certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
        if certificates and Path(certificates).is_file():
            shutil.copy(certificates, folder / _CERTIFICATES)
            lines += [
                f"export {variable}={MOUNT}/{_CERTIFICATES}" for variable in ("PIP_CERT", "SSL_CERT_FILE")
            ]
        (folder / SCRIPT).write_text("\n".join([*lines, ""]))
        yield f"{folder}:{MOUNT}:ro"


def pip_settings() -> dict[str, str]:
    """pip's settings by key: the environment before the user's file, and that before the machine's."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf"]
    parser = configparser.RawConfigParser(strict=False)
    parser.read([*files, os.environ.get("PIP_CONFIG_FILE") or os.devnull])
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update(parser.items(section))
    given = {
        name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name[:4] == "PIP_"
    }
    return settings | given
