"""Looks at the image that it runs in; needs Python alone.

    python3 inspect_image.py packages    Python's version, Python distributions and system packages
    python3 inspect_image.py content     also a hash over all files
    python3 inspect_image.py files       what that hash is over, a line a file

The first two print JSON. Files count by path, kind, mode and bytes; owner and times do not, because the user who builds and the
day of the build are not content. What is left out stands in LEFT_OUT with its reason.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

LEFT_OUT = {
    "/dev": "the machine's",
    "/proc": "the machine's",
    "/sys": "the machine's",
    "/run": "the machine's, empty in an image",
    "/tmp": "the machine's, empty in an image",
    "/var/tmp": "the machine's, empty in an image",
    "/root": "a home folder: the user's at run time",
    "/home": "home folders: the users' at run time",
    "/.singularity.d/labels.json": "holds the day of the build; base and locks stand in the image lock",
    "/etc/hosts": "written at run time",
    "/etc/resolv.conf": "written at run time",
    "/etc/localtime": "written at run time",
    "/etc/passwd": "the user of the run is added to it",
    "/etc/group": "the groups of the run are added to it",
    "/etc/hostname": "the machine's",
    "/etc/mtab": "the machine's",
    "/var/cache/ldconfig/aux-cache": "holds times and inode numbers of libraries",
    "/var/log": "logs of the installation hold times",
    "/var/lib/dpkg": "the state and logs hold times; packages stand in the image lock by version",
    "/var/lib/apt": "the state of the package manager at the build",
    "/var/cache/apt": "the state of the package manager at the build",
    "/var/cache/debconf": "the state of the package manager at the build",
}


def files():
    """Everything in the image without what is left out; links to folders are not followed."""
    for folder, folders, names in os.walk("/"):
        here = Path(folder)
        folders[:] = [name for name in folders if str(here / name) not in LEFT_OUT]
        yield from (here / name for name in (*folders, *names) if str(here / name) not in LEFT_OUT)


def described(path):
    """A line of the content: path, kind and mode, and what is in it."""
    mode = path.lstat().st_mode
    what = ""
    if stat.S_ISLNK(mode):
        what = str(path.readlink())
    elif stat.S_ISREG(mode):
        with path.open("rb") as file:
            what = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path}\0{mode:o}\0{what}\n".encode("utf-8", "surrogateescape")


def content():
    """(hash, number of files)"""
    whole = hashlib.sha256()
    count = 0
    for path in sorted(files()):
        whole.update(described(path))
        count += 1
    return whole.hexdigest(), count


def python_packages():
    found = ((found.metadata["Name"], found.version) for found in importlib.metadata.distributions())
    return {name.lower().replace("_", "-"): version for name, version in found if name}


def system_packages():
    """Of Debian's and Ubuntu's package manager; none where there is another."""
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\n"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return {}
    return dict(line.split("\t") for line in listed.stdout.splitlines() if "\t" in line)


def main():
    if sys.argv[1:] == ["files"]:
        for path in sorted(files()):
            sys.stdout.buffer.write(described(path))
        return
    found = {
        "python": platform.python_version(),
        "packages": python_packages(),
        "system_packages": system_packages(),
    }
    if sys.argv[1:] == ["content"]:
        found["content_sha256"], found["content_files"] = content()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
