"""Make writes and syncs of files fail with EIO, at random (Linux, with a C compiler)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

# SQLite writes by pwrite and pwrite64; everything else writes by write, and is left alone.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned every, seed;

void set_faults(unsigned one_in, unsigned start) { every = one_in; seed = start; }

#define FAULTY(type, name, declared, passed)                                  \
    type name declared {                                                      \
        static type (*plain) declared;                                        \
        if (every && rand_r(&seed) % every == 0) { errno = EIO; return -1; }  \
        if (!plain) plain = dlsym(RTLD_NEXT, #name);                          \
        return plain passed;                                                  \
    }

FAULTY(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAULTY(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FAULTY(int, fsync, (int fd), (fd))
FAULTY(int, fdatasync, (int fd), (fd))
FAULTY(int, ftruncate, (int fd, off_t size), (fd, size))
FAULTY(int, ftruncate64, (int fd, off64_t size), (fd, size))
"""


def run_again(folder: Path) -> None:
    """Run this program again with a library that injects faults; return only in that run."""
    if "libfaults" in os.environ.get("LD_PRELOAD", ""):
        return
    source, library = folder / "faults.c", folder / "libfaults.so"
    source.write_text(_SOURCE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    raise SystemExit(
        subprocess.run(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, "LD_PRELOAD": str(library)},
            check=False,
        ).returncode
    )


def begin(one_in: int, seed: int) -> None:
    """Make one call in `one_in` of this process fail from now on; 0 for none."""
    ctypes.CDLL(None).set_faults(one_in, seed)
