"""Set up the environment that Assay runs in, or say in one message what stands in the way.

    python3 tools/setup.py [--dev]

Makes a virtual environment from hash-locked requirements. An environment that is whole and current is left alone;
one that is not (interrupted, changed, damaged) is made anew. Uses the standard library alone, and no syntax newer
than Python 3.6, so that an old interpreter can say that it is too old.
"""

import argparse
import csv
import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager

import install
from install import Failure, say

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)
NEWEST = (3, 14)
NEEDED_BYTES = 8 * 10**9
STAMP = "assay-setup.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="also what tests and lints need")
    parser.add_argument("--environment", default=os.path.join(ROOT, ".venv"), help="folder to make")
    parser.add_argument("--requirements", help="another lock file")
    parser.add_argument(
        "--without-assay", action="store_true", help="what the lock file names, and not this checkout"
    )
    parser.add_argument(
        "--needs", type=int, default=NEEDED_BYTES, help="free bytes to ask for before it begins"
    )
    arguments = parser.parse_args()
    name = "dev.txt" if arguments.dev else "run.txt"
    lock = arguments.requirements or os.path.join(ROOT, "requirements", name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_python()
        environment = Environment(
            os.path.abspath(arguments.environment), os.path.abspath(lock), arguments.needs
        )
        environment.with_assay = not arguments.without_assay
        environment.ensure()
    except Failure as failure:
        sys.stderr.write("set-up: %s\n" % failure)
        return 1
    except OSError as error:
        sys.stderr.write("set-up: %s\n" % in_words(error))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("set-up: interrupted; the same command begins it anew\n")
        return 130
    return 0


def check_python():
    """Refuse an interpreter for which the locked packages do not exist."""
    version = "Python %d.%d" % sys.version_info[:2]
    advice = (
        "(this is %s).\n  Install one, then name it: make demo PYTHON=/path/to/python3.13" % sys.executable
    )
    if sys.version_info < OLDEST:
        raise Failure("%s is too old, Assay needs 3.11 or newer %s" % (version, advice))
    if sys.version_info[:2] > NEWEST:
        raise Failure(
            "%s is too new for the locked PyTorch, which goes up to %d.%d %s" % (version, *NEWEST, advice)
        )


class Environment:
    """One virtual environment and the lock file that it is made from."""

    def __init__(self, folder, lock, needs):
        self.folder = folder
        self.lock = lock
        self.needs = needs
        self.python = os.path.join(folder, "bin", "python")
        self.stamp = os.path.join(folder, STAMP)
        self.with_assay = True

    def ensure(self):
        """Make the environment unless it is there, current and whole."""
        if not os.path.exists(self.lock):
            raise Failure("%s: no such lock file; run it from a whole checkout of Assay" % self.lock)
        if self.problem() is None:
            return
        with self.alone():
            problem = self.problem()
            if problem is None:
                return
            if os.path.lexists(self.folder):
                self.refuse_foreign()
                say("%s %s; making it anew" % (self.folder, problem))
            self.check_space()
            remove(self.folder)
            self.make()

    @contextmanager
    def alone(self):
        """Two set-ups at once: the second waits for the first, and for what a killed one left running."""
        import fcntl

        path = self.folder + ".lock"
        try:
            file = open(path, "a+")
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
            install.KEEP_OPEN.append(file.fileno())
            try:
                yield
            finally:
                install.KEEP_OPEN.remove(file.fileno())

    def problem(self):
        """Why the environment cannot be used as it is; None if it can."""
        if not os.path.isdir(self.folder):
            return "is not there"
        try:
            with open(self.stamp) as file:
                stamp = json.load(file)
        except (OSError, ValueError):
            stamp = {}
        if not stamp.get("finished"):
            return "was not finished"
        if stamp["folder"] != self.folder:
            return "was made for %s" % stamp["folder"]
        if stamp["python"] != python_version():
            return "is for Python %s, this is %s" % (stamp["python"], python_version())
        if stamp["lock"] not in self.accepted():
            return "is from other requirements"
        if not self.runs():
            return "is broken: its interpreter does not run"
        for _, damage in damages(stamp):
            return "is broken: %s" % damage
        return None

    def accepted(self):
        """Digests of lock files that serve: after `make test`, which needs more, `make demo` changes nothing."""
        locks = [self.lock]
        if os.path.basename(self.lock) == "run.txt":
            locks.append(os.path.join(os.path.dirname(self.lock), "dev.txt"))
        return [digest(path) for path in locks if os.path.exists(path)]

    def runs(self):
        try:
            return install.quietly([self.python, "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"])
        except OSError:
            return False

    def refuse_foreign(self):
        """Nothing is removed that was not made here."""
        made_here = os.path.exists(self.stamp) or (os.path.isdir(self.folder) and not os.listdir(self.folder))
        if os.path.islink(self.folder) or not made_here:
            raise Failure(
                "%s is there and was not made by this set-up, so it is left alone.\n"
                "  Move it away, then run the same command again" % self.folder
            )

    def check_space(self):
        free = shutil.disk_usage(os.path.dirname(self.folder)).free + freed_by_removing(self.folder)
        if free < self.needs:
            raise Failure(
                "%.1f GB are free at %s, the environment needs %.1f GB.\n"
                "  Make room, or put the checkout on another disk."
                % (free / 1e9, os.path.dirname(self.folder), self.needs / 1e9)
            )

    def make(self):
        """Make it in its place; the stamp is finished last, so that half an environment is never taken for one."""
        began = time.time()
        say("making %s from %s" % (self.folder, os.path.relpath(self.lock, ROOT)))
        os.makedirs(self.folder)
        write(self.stamp, "{}\n")
        install.virtual_environment(self.folder)
        installer = install.Installer(self.folder, self.python, self.needs)
        installer.bootstrap(os.path.join(ROOT, "requirements", "bootstrap.txt"))
        if self.takes_torch():
            say("fetching PyTorch and what else it needs: about 3 GB, unless they are in uv's cache")
        site = install.output([self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        installer.requirements(self.lock)
        stamp = {
            "finished": True,
            "lock": digest(self.lock),
            "python": python_version(),
            "folder": self.folder,
            "site": site,
            "distributions": sorted(name for name in os.listdir(site) if name.endswith(".dist-info")),
            "files": link_package(self.folder, site, self.python) if self.with_assay else {},
        }
        self.mend(installer, stamp)
        installer.close()
        write(self.stamp + ".new", json.dumps(stamp, indent=1) + "\n")
        os.replace(self.stamp + ".new", self.stamp)
        say("ready after %d s" % (time.time() - began))

    def takes_torch(self):
        with open(self.lock, encoding="utf-8") as file:
            return any(line.startswith("torch==") for line in file)

    def mend(self, installer, stamp):
        """Files are links into uv's cache: one that was damaged there would come back damaged for ever."""
        packages = sorted({package for package, _ in damages(stamp)})
        if packages:
            say("the cache of uv is damaged for %s; fetching anew" % ", ".join(packages))
            installer.again(self.lock, packages)
        for _, damage in damages(stamp):
            raise Failure("what was installed is not whole: %s" % damage)


def damages(stamp):
    """Pairs of a package and what is missing of it, or has another size than was installed, in words.

    Assay's own two files are small, and held by their content.
    """
    site = stamp["site"]
    for path, content in sorted(stamp["files"].items()):
        if not os.path.exists(path):
            yield "assay", "%s is missing" % os.path.normpath(path)
        elif digest(path) != content:
            yield "assay", "%s was changed" % os.path.normpath(path)
    for distribution in stamp["distributions"]:
        package = distribution.partition("-")[0]
        record = os.path.join(site, distribution, "RECORD")
        try:
            with open(record, newline="") as file:
                rows = [(row[0], int(row[2])) for row in csv.reader(file) if len(row) > 2 and row[2]]
        except (OSError, ValueError, csv.Error):
            yield package, "%s is missing or was changed" % record
            continue
        for name, size in rows:
            for problem in other_size(os.path.join(site, name), size):
                yield package, problem


def other_size(path, size):
    """What is wrong with the file, if anything."""
    try:
        found = os.stat(path).st_size
    except OSError:
        return ["%s is missing" % os.path.normpath(path)]
    return [] if found == size else ["%s was changed" % os.path.normpath(path)]


def freed_by_removing(folder):
    """Bytes: files that are links into uv's cache stay there."""
    if os.path.islink(folder):
        return 0
    sizes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            sizes += status.st_size if status.st_nlink == 1 else 0
    return sizes


def link_package(folder, site, python):
    """Assay itself is used from the checkout: a path file, and the command. Gives: digests by path."""
    paths = os.path.join(site, "assay.pth")
    write(paths, os.path.join(ROOT, "src") + "\n")
    command = os.path.join(folder, "bin", "assay")
    # -P: a random.py of the user's own, in the folder that they stand in, is not Python's.
    write(command, "#!/bin/sh\nexec '%s' -P -m assay \"$@\"\n" % python.replace("'", "'\\''"))
    os.chmod(command, 0o755)
    return {path: digest(path) for path in (paths, command)}


def in_words(error):
    """What an operation of the system's failed for, and what to do."""
    advice = {
        errno.ENOSPC: "the disk is full; make room and run the same command again",
        errno.EDQUOT: "your disk quota is used up; make room and run the same command again",
        errno.EACCES: "it cannot be written; set up in a checkout that you own",
        errno.EROFS: "it cannot be written; set up in a checkout that you own",
    }.get(error.errno, "then run the same command again")
    return "%s (%s)\n  %s" % (error.filename or "a file", error.strerror, advice)


def python_version():
    return "%d.%d.%d" % sys.version_info[:3]


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def remove(folder):
    """The stamp goes last: an interrupted removal is one of ours still."""
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name == STAMP:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
