# Installs the locked requirements onto the base; run by the definition's %post.
set -eu
build=/opt/assay/build environment=/opt/assay/environment
# Index, certificates and proxy of the machine that builds; mounted for the build alone.
if [ -f /srv/index.sh ]; then . /srv/index.sh; fi
# The same files from every build: modules are compiled once, below, and without times.
export SOURCE_DATE_EPOCH=0 PYC_INVALIDATION_MODE=CHECKED_HASH PYTHONDONTWRITEBYTECODE=1
umask 022

python=$(command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "the base has $("$python" --version), Assay needs 3.11 or newer: choose another base" >&2
    exit 1
}

# A base that has PyTorch keeps its own, which is built for its CUDA; others get the locked one.
if "$python" -c 'import torch, torchvision' 2>/dev/null; then
    site=--system-site-packages locks="$build/requirements.txt"
else
    site= locks="$build/torch.txt $build/requirements.txt"
fi
"$python" -m venv $site "$environment"
pip() { "$environment/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --root-user-action ignore --no-cache-dir --no-compile --require-hashes --no-deps -r "$build/bootstrap.txt"
for lock in $locks; do
    # What has no wheel is built with the locked setuptools, not with one fetched for the purpose.
    "$environment/bin/uv" pip install --quiet --no-cache --python "$environment/bin/python" --compile-bytecode \
        --require-hashes --no-deps --no-build-isolation -r "$lock"
done
pip uninstall --yes uv

# For interactive use over ssh.
if ! command -v sshd >/dev/null && [ ! -x /usr/sbin/sshd ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssh-server >/dev/null
    rm -rf /var/lib/apt/lists/*
fi
# sshd looks for it where root runs it.
mkdir -p /run/sshd
# Keys of a host that never was: each use makes its own.
rm -f /etc/ssh/ssh_host_*
