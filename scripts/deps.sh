#!/bin/sh
# Installs by apt the Debian packages that pyhv's build, tests and AMD-V rig stand on.
#
#   scripts/deps.sh [--check] [build|rig|all]
#
#   build   compiler, make and Python's venv and headers: enough for `make run` and the host's tests
#   rig     QEMU, busybox, the tools that unpack and inspect kernels, and what tests of disks and networks compare with
#   all     both (the default)
#
# As root, what is missing is installed; as anyone else the one line that installs it is printed, exit status 1.
# --check only says what is missing (status 1) or nothing (status 0), and never touches the network.
set -eu

check=0
group=all
for argument in "$@"; do
    case $argument in
        --check) check=1 ;;
        build | rig | all) group=$argument ;;
        *)
            echo "deps.sh: unknown argument '$argument' (takes [--check] [build|rig|all])" >&2
            exit 2
            ;;
    esac
done

missing=

need_package() {
    # Not every state with a version counts: a removed package keeps its "config-files" entry.
    case $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $1" ;;
    esac
}

need_command() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

need_python() {
    # A Python that Debian did not package (pyenv, /usr/local) brings its own venv and headers.
    if ! command -v python3 >/dev/null 2>&1; then
        missing="$missing python3 python3-venv python3-dev"
        return
    fi
    python3 -I -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    python3 -I -c 'import os, sysconfig as s; os.stat(os.path.join(s.get_path("include"), "Python.h"))' \
        2>/dev/null || missing="$missing python3-dev"
}

need_build() {
    need_command gcc gcc
    need_command ld binutils
    need_command make make
    need_package libc6-dev
    need_python
}

need_rig() {
    need_package qemu-system-x86
    need_package qemu-system-common
    need_package busybox-static
    need_package kmod
    need_command cpio cpio
    need_command lz4 lz4
    need_command zstd zstd
    need_command xz xz-utils
    need_command iasl acpica-tools
    need_command qemu-img qemu-utils
    need_command mke2fs e2fsprogs
    need_package libslirp0
    need_package passt
    need_command ip iproute2
}

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "deps.sh: this is no Debian-like system (no apt-get); install by hand: gcc make python3 (venv, headers)," \
        "QEMU for x86, qemu-img, a static busybox, kmod, cpio, lz4, zstd, xz, iasl, libslirp, ip" >&2
    exit 1
fi

case $group in
    build) need_build ;;
    rig) need_rig ;;
    all)
        need_build
        need_rig
        ;;
esac

if [ -z "$missing" ]; then
    exit 0
fi

if [ "$check" = 1 ]; then
    echo "missing:$missing"
    exit 1
fi

if [ "$(id -u)" != 0 ]; then
    echo "deps.sh: missing system packages; as root, run:" >&2
    echo "apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi

if command -v python3 >/dev/null 2>&1 &&
    ! python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "deps.sh: $(python3 --version) is too old: pyhv needs Python 3.11 or newer" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# Another apt may be at work: wait for its lock instead of failing.
apt-get -q -o DPkg::Lock::Timeout=600 update
# shellcheck disable=SC2086 # a list of package names, split on purpose
apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing
