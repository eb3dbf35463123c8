"""Set up the environment that Assay runs in, or say in one message what stands in the way.

    python3 tools/setup.py [--dev]

Makes a virtual environment from hash-locked requirements. An environment that is whole and current is left alone;
one that is not (interrupted, changed, damaged) is made anew. Uses the standard library alone, and no syntax newer
than Python 3.6, so that an old interpreter can say that it is too old.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)
NEEDED_BYTES = 8 * 10**9
STAMP = "assay-setup.json"


class Failure(Exception):
    """What stands in the way, and what to do about it."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="also what tests and lints need")
    parser.add_argument("--environment", default=os.path.join(ROOT, ".venv"), help="folder to make")
    parser.add_argument("--requirements", help="another lock file")
    parser.add_argument(
        "--needs", type=int, default=NEEDED_BYTES, help="free bytes to ask for before it begins"
    )
    arguments = parser.parse_args()
    name = "dev.txt" if arguments.dev else "run.txt"
    lock = arguments.requirements or os.path.join(ROOT, "requirements", name)
    try:
        check_python()
        Environment(
            os.path.abspath(arguments.environment), lock, arguments.needs, arguments.requirements
        ).ensure()
    except Failure as failure:
        sys.stderr.write("set-up: %s\n" % failure)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("set-up: interrupted; the same command begins it anew\n")
        return 130
    return 0


def check_python():
    if sys.version_info < OLDEST:
        raise Failure(
            "Python %d.%d is too old, Assay needs 3.11 or newer (this is %s).\n"
            "  Install a newer one, then name it: make demo PYTHON=/path/to/python3.11"
            % (sys.version_info[0], sys.version_info[1], sys.executable)
        )


class Environment:
    """One virtual environment and the lock file that it is made from."""

    def __init__(self, folder, lock, needs, own_lock):
        self.folder = folder
        self.lock = lock
        self.needs = needs
        self.wants_superset = not own_lock
        self.python = os.path.join(folder, "bin", "python")
        self.stamp = os.path.join(folder, STAMP)

    def ensure(self):
        if not os.path.exists(self.lock):
            raise Failure("%s: no such lock file; run it from a whole checkout of Assay" % self.lock)
        with self.alone():
            problem = self.problem()
            if problem is None:
                return
            if os.path.isdir(self.folder):
                say("%s %s; making it anew" % (self.folder, problem))
            self.make()

    @contextmanager
    def alone(self):
        """Two set-ups at once: the second waits for the first."""
        import fcntl

        path = self.folder + ".lock"
        try:
            file = open(path, "a")
        except OSError as error:
            raise Failure(
                "%s cannot be written (%s); set up in a checkout that you own" % (path, error.strerror)
            )
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("another set-up of %s is going on; waiting for it" % self.folder)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def identity(self):
        with open(self.lock, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        return {"lock": digest, "python": sys.version.split()[0], "folder": self.folder}

    def problem(self):
        """Why the environment cannot be used as it is; None if it can."""
        if not os.path.isdir(self.folder):
            return "is not there"
        try:
            with open(self.stamp) as file:
                stamp = json.load(file)
        except (OSError, ValueError):
            return "was not finished"
        if not self.current(stamp):
            return "is from another lock file, folder or Python"
        if (
            subprocess.call([self.python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            != 0
        ):
            return "is broken: its interpreter does not run"
        damaged = damaged_file(stamp["site"])
        return None if damaged is None else "is broken: %s" % damaged

    def current(self, stamp):
        """An environment with more than is asked for serves too: `make demo` after `make test` changes nothing."""
        identity = self.identity()
        same = all(stamp.get(key) == identity[key] for key in ("python", "folder"))
        accepted = [identity["lock"]]
        if self.wants_superset and self.lock.endswith("run.txt"):
            with open(os.path.join(os.path.dirname(self.lock), "dev.txt"), "rb") as file:
                accepted.append(hashlib.sha256(file.read()).hexdigest())
        return same and stamp.get("lock") in accepted

    def make(self):
        began = time.time()
        self.check_space()
        remove(self.folder)
        say("making %s from %s" % (self.folder, os.path.relpath(self.lock, ROOT)))
        run(
            [sys.executable, "-m", "venv", "--without-pip", self.folder],
            "the virtual environment could not be made",
        )
        bootstrap = os.path.join(ROOT, "requirements", "bootstrap.txt")
        pip = pip_command(self.python)
        options = ["--require-hashes", "--no-deps", "--disable-pip-version-check", "--quiet"]
        run([*pip, "install", *options, "-r", bootstrap], "the installer could not be fetched")
        say("fetching PyTorch and what else it needs: about 3 GB, once")
        uv = os.path.join(self.folder, "bin", "uv")
        command = [
            uv,
            "pip",
            "install",
            "--python",
            self.python,
            "--require-hashes",
            "--no-deps",
            "-r",
            self.lock,
        ]
        run(command, "the requirements could not be installed", environment=uv_environment(pip))
        site = output([self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        link_package(self.folder, site, self.python)
        write(self.stamp, json.dumps(dict(self.identity(), site=site), indent=1) + "\n")
        say("ready after %d s" % (time.time() - began))

    def check_space(self):
        free = shutil.disk_usage(os.path.dirname(self.folder)).free
        if os.path.isdir(self.folder):
            free += sum(
                os.lstat(os.path.join(folder, name)).st_size
                for folder, _, names in os.walk(self.folder)
                for name in names
            )
        if free < self.needs:
            raise Failure(
                "%.1f GB are free at %s, the environment needs %.1f GB.\n"
                "  Make room, or put the checkout on another disk."
                % (free / 1e9, os.path.dirname(self.folder), self.needs / 1e9)
            )


def damaged_file(site):
    """The first installed file that is missing or has another size than its package's list says."""
    for entry in sorted(os.listdir(site)):
        if not entry.endswith(".dist-info"):
            continue
        record = os.path.join(site, entry, "RECORD")
        if not os.path.exists(record):
            return "%s is missing" % record
        with open(record, newline="") as file:
            for row in csv.reader(file):
                if len(row) < 3 or not row[2]:
                    continue
                path = os.path.join(site, row[0])
                try:
                    size = os.stat(path).st_size
                except OSError:
                    return "%s is missing" % path
                if size != int(row[2]):
                    return "%s was changed" % path
    return None


def pip_command(python):
    """pip of this interpreter, working on the new environment; else the one that Python brings along."""
    if (
        subprocess.call(
            [sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        == 0
    ):
        return [sys.executable, "-m", "pip", "--python", python]
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise Failure(
            "%s has neither pip nor the module ensurepip.\n"
            "  On Debian or Ubuntu: apt install python3-venv" % sys.executable
        )
    run([python, "-m", "ensurepip"], "pip could not be set up")
    return [python, "-m", "pip"]


def uv_environment(pip):
    """The index that pip is configured for, handed to uv; what the user set for uv itself goes first."""
    environment = dict(os.environ)
    index = os.environ.get("PIP_INDEX_URL") or output([*pip[:3], "config", "get", "global.index-url"])
    if index:
        environment.setdefault("UV_DEFAULT_INDEX", index)
    certificates = os.environ.get("PIP_CERT")
    if certificates:
        environment.setdefault("SSL_CERT_FILE", certificates)
    environment.setdefault("UV_LINK_MODE", "hardlink" if same_disk(environment) else "copy")
    environment.setdefault("UV_HTTP_TIMEOUT", "120")
    environment.setdefault("UV_NO_CONFIG", "1")
    return environment


def same_disk(environment):
    cache = environment.get("UV_CACHE_DIR") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "uv"
    )
    while not os.path.exists(cache):
        cache = os.path.dirname(cache)
    return os.stat(cache).st_dev == os.stat(ROOT).st_dev


def link_package(folder, site, python):
    """Assay itself is used from the checkout: a path file, and the command."""
    write(os.path.join(site, "assay.pth"), os.path.join(ROOT, "src") + "\n")
    command = os.path.join(folder, "bin", "assay")
    write(command, "#!/bin/sh\nexec '%s' -m assay \"$@\"\n" % python.replace("'", "'\\''"))
    os.chmod(command, 0o755)


_CAUSES = (
    (
        ("No space left on device", "os error 28"),
        "the disk is full; make room and run the same command again",
    ),
    (
        ("Hash mismatch", "DO NOT MATCH THE HASHES"),
        "a package is not the one that was locked: its hash differs.\n"
        "  Do not use this index, or ask whoever runs it; `make lock` locks what it holds now",
    ),
    (
        (
            "error sending request",
            "Failed to fetch",
            "dns error",
            "Connection refused",
            "NewConnectionError",
            "Name or service not known",
            "Temporary failure in name resolution",
            "No matching distribution found",
            "Network is unreachable",
            "timed out",
            "tls handshake",
        ),
        "the package index could not be reached.\n"
        "  Check the network; behind a proxy or with an index of your own, set HTTPS_PROXY or PIP_INDEX_URL",
    ),
    (
        ("Permission denied", "Read-only file system"),
        "files cannot be written; set up in a checkout that you own",
    ),
)


def run(command, what, environment=None):
    """Run a step, its output shown as it comes. Raises: Failure with the likely cause."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
    if process.wait() == 0:
        return
    text = "".join(lines)
    for words, cause in _CAUSES:
        if any(word.lower() in text.lower() for word in words):
            raise Failure("%s: %s\n\n%s" % (what, cause, indented(text)))
    raise Failure("%s:\n\n%s" % (what, indented(text)))


def indented(text, lines=15):
    return "\n".join("    " + line for line in text.strip().splitlines()[-lines:])


def output(command):
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def remove(folder):
    if os.path.isdir(folder):
        shutil.rmtree(folder)


def say(text):
    sys.stderr.write("set-up: %s\n" % text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
