"""The steps of a set-up that other programs do: venv, pip, uv. See setup.py; as old a syntax, and no more libraries."""

import ast
import os
import shutil
import ssl
import subprocess
import sys

KEEP_OPEN = []
"""File descriptors that children inherit: the lock lasts as long as any of them."""

# What decides which packages are installed is the lock's; where they come from is the user's.
NOT_THE_USERS = (
    "UV_CONSTRAINT",
    "UV_EXCLUDE",
    "UV_EXCLUDE_NEWER",
    "UV_NO_BINARY",
    "UV_NO_VERIFY_HASHES",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_SYSTEM_PYTHON",
    "UV_TORCH_BACKEND",
)

CAUSES = (
    (
        ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122"),
        "the disk is full; make room and run the same command again",
    ),
    (
        ("Hash mismatch", "DO NOT MATCH THE HASHES"),
        "a package is not the one that was locked: its hash differs.\n"
        "  Do not use this index, or ask whoever runs it; `make lock` locks what it holds now",
    ),
    (
        ("Permission denied", "Read-only file system"),
        "files cannot be written; set up in a checkout that you own",
    ),
    (
        ("certificate", "tls handshake"),
        "the package index was reached, its certificate is not trusted.\n"
        "  Name your site's certificates: SSL_CERT_FILE=/path/to/ca.pem, or `pip config set global.cert`",
    ),
    (
        ("401 Unauthorized", "403 Forbidden", "407 Proxy", "429 Too Many", "HTTP status server error"),
        "the package index refused to answer; see below.\n"
        "  With a proxy or an index of your own, set HTTPS_PROXY or PIP_INDEX_URL",
    ),
    (
        (
            "Connection refused",
            "Connection reset",
            "dns error",
            "error sending request",
            "Failed to fetch",
            "Name or service not known",
            "Network is unreachable",
            "NewConnectionError",
            "Temporary failure in name resolution",
            "timed out",
        ),
        "the package index could not be reached.\n"
        "  Check the network; behind a proxy or with an index of your own, set HTTPS_PROXY or PIP_INDEX_URL",
    ),
    (
        ("Failed to build", "build backend"),
        "a package has no ready-made build for this Python and machine, and could not be built.\n"
        "  Name Python 3.11, 3.12 or 3.13 (make demo PYTHON=python3.13), or install a C compiler",
    ),
    (
        ("No matching distribution found", "not found in the package registry", "no version of"),
        "the package index does not hold what is locked.\n"
        "  Choose another by PIP_INDEX_URL; `make lock` locks what this one holds now",
    ),
)


class Failure(Exception):
    """What stands in the way, and what to do about it."""


def virtual_environment(folder):
    """An environment without pip: Debian's Python cannot put it there."""
    try:
        import venv  # noqa: F401
    except ImportError:
        raise Failure(
            "%s lacks the module venv.\n  On Debian or Ubuntu: apt install python3-venv" % sys.executable
        )
    run([sys.executable, "-m", "venv", "--without-pip", folder], "the virtual environment could not be made")


class Installer:
    """pip, only to get uv; then uv, which takes seconds where pip takes minutes."""

    def __init__(self, folder, python, needs):
        self.folder = folder
        self.python = python
        self.needs = needs
        self.pip = pip_command(python)
        self.cache = os.path.join(folder, "uv-cache")
        """Used where the user's own cache cannot be; removed at the end."""

    def bootstrap(self, lock):
        """Raises: Failure, if what installs the rest cannot be had."""
        environment = dict(os.environ, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
        for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT"):
            environment.pop(name, None)
        options = ["--require-hashes", "--no-deps", "--quiet", "--retries", "2", "-r", lock]
        run([*self.pip, "install", *options], "the installer could not be fetched", environment)

    def requirements(self, lock, *options):
        """Install the lock file, showing uv's progress. Raises: Failure."""
        command = [os.path.join(self.folder, "bin", "uv"), "pip", "install", "--python", self.python]
        # Source packages are built with the locked setuptools, not with one fetched for the purpose.
        command += ["--require-hashes", "--no-deps", "--no-build-isolation", "--compile-bytecode"]
        command += [*options, "-r", lock]
        run(command, "the requirements could not be installed", self.environment(), show=True)

    def again(self, lock, packages):
        """Drop the packages from uv's cache and install them from the index. Raises: Failure."""
        uv = os.path.join(self.folder, "bin", "uv")
        run([uv, "cache", "clean", *packages], "uv's cache could not be cleaned", self.environment())
        self.requirements(lock, *["--reinstall-package=%s" % package for package in packages])

    def environment(self):
        """Index, certificates and proxy that pip is configured for, in uv's words."""
        settings = pip_settings(self.pip)
        variables = {
            "UV_DEFAULT_INDEX": settings.get("index-url"),
            "UV_INDEX": " ".join(existing(settings.get("extra-index-url"))),
            "UV_FIND_LINKS": ",".join(existing(settings.get("find-links"))),
            "UV_NO_INDEX": "1" if settings.get("no-index") in ("1", "true", "True", "yes") else None,
            "UV_INSECURE_HOST": " ".join((settings.get("trusted-host") or "").split()),
            "SSL_CERT_FILE": settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE"),
            "HTTPS_PROXY": settings.get("proxy"),
            # As pip does: the locked version from whichever index has it. Hashes make that safe.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_HTTP_TIMEOUT": "120",
        }
        environment = {name: text for name, text in os.environ.items() if name not in NOT_THE_USERS}
        for name, value in variables.items():
            if value:
                environment.setdefault(name, value)
        if not environment.get("SSL_CERT_FILE") and os.path.exists(
            ssl.get_default_verify_paths().openssl_cafile
        ):
            environment.setdefault("UV_SYSTEM_CERTS", "1")
        self._choose_cache(environment)
        return environment

    def _choose_cache(self, environment):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        cache = environment.get("UV_CACHE_DIR") or os.path.join(home, "uv")
        parent = cache
        while not os.path.exists(parent) and parent != os.path.dirname(parent):
            parent = os.path.dirname(parent)
        usable = os.access(parent, os.W_OK)
        same_disk = os.stat(parent).st_dev == os.stat(self.folder).st_dev
        if not usable or not (same_disk or shutil.disk_usage(parent).free >= self.needs):
            environment["UV_CACHE_DIR"] = self.cache
            same_disk = True
        environment.setdefault("UV_LINK_MODE", "hardlink" if same_disk else "copy")

    def close(self):
        if os.path.isdir(self.cache):
            shutil.rmtree(self.cache)


def pip_command(python):
    """pip of this interpreter, working on the new environment; else the one that Python brings along."""
    on_environment = [sys.executable, "-m", "pip", "--python", python]
    if quietly([*on_environment, "--version"]):
        return on_environment
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise Failure(
            "%s has neither pip nor the module ensurepip.\n"
            "  On Debian or Ubuntu: apt install python3-venv" % sys.executable
        )
    run([python, "-m", "ensurepip"], "pip could not be set up")
    return [python, "-m", "pip"]


def pip_settings(pip):
    """What pip is configured for, by key. The environment goes before `[install]`, and that before `[global]`."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found = {}
    for line in output([*pip, "config", "list"]).splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        try:
            text = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            continue
        if section in ranks:
            found.setdefault(key, []).append((ranks[section], text))
    return {key: max(values)[1] for key, values in found.items()}


def existing(places):
    """Indexes or folders without those of this machine's that are not there: pip ignores them, uv does not."""
    paths = [(place, place[7:] if place.startswith("file://") else place) for place in (places or "").split()]
    return [place for place, path in paths if "://" in path or os.path.exists(path)]


def run(command, what, environment=None, show=False):
    """Run a step; show: its output as it comes. Raises: Failure with the likely cause."""
    process, source = start(command, environment, show and sys.stderr.isatty())
    text = b""
    try:
        while True:
            try:
                chunk = os.read(source, 65536)
            except OSError:  # a terminal whose program has ended
                chunk = b""
            if not chunk:
                break
            # What follows "Installed" is a list of every package.
            if show and b"Installed " not in text:
                sys.stderr.write(chunk.decode(errors="replace").split("Installed ")[0])
                sys.stderr.flush()
            text = text[-65536:] + chunk
        process.wait()
    finally:
        os.close(source)
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode != 0:
        raise Failure(explained(what, text.decode(errors="replace")))


def start(command, environment, terminal):
    """The process and a descriptor of its output; with a terminal it shows bars where it would print lines."""
    if terminal:
        import fcntl
        import pty
        import termios

        source, sink = pty.openpty()
        size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(sink, termios.TIOCSWINSZ, size)
    else:
        source, sink = os.pipe()
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=KEEP_OPEN
        )
    except OSError:
        os.close(source)
        raise
    finally:
        os.close(sink)
    return process, source


def explained(what, text, lines=15):
    tail = "\n".join("    " + line for line in text.strip().splitlines()[-lines:])
    for words, cause in CAUSES:
        if any(word.lower() in text.lower() for word in words):
            return "%s: %s\n\n%s" % (what, cause, tail)
    return "%s:\n\n%s" % (what, tail)


def quietly(command):
    """Whether it succeeds."""
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def output(command):
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def say(text):
    sys.stderr.write("set-up: %s\n" % text)
    sys.stderr.flush()
