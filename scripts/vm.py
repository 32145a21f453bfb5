"""Boots a stock Debian kernel under virtme-ng and runs the tests and the demo in it.

Needs root (mmdebstrap makes device nodes and owners) but no KVM. Everything it makes is in a cache
folder and used again: the kernel (unpacked, not installed), a root image with the packages of a lab
machine, and virtme-ng in an environment of its own. The project travels on a second disk, made
anew for every run; the guest's writes are thrown away.

A disk is used and not virtme-ng's default, the host's root over 9p: under emulation importing what
shaper needs takes 7 s from a disk and 35 s over 9p.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIRTME_NG = "virtme-ng==1.42"
SUITE = "bookworm"
"""Of the root image: the distribution that the project's .venv was made on."""
SUITE_PYTHON = (3, 11)
IMAGE_PACKAGES = ("python3", "udev", "util-linux")  # beside those that scripts/setup lists
IMAGE_SIZE = "3G"
MAKE_DISK = ("/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal")
WORK_LABEL = "shaper-work"
TESTS = ("tests/bpf", "tests/netns", "tests/vm")
# While its host is busy an emulated machine's timers are late, and HTB does not catch up on more
# than a burst (1 ms): the figures here tell right from wrong, not how exact shaping is.
DEMO_OPTIONS = ("--slow", "--leaf", "fq_codel", "--tolerance", "30")
OBJECT_DAYS = 7
STOP_S = 30


class VmError(Exception):
    """Something this script needs is missing or failed; printed without a traceback."""


def say(message: str) -> None:
    print(f"vm-test: {message}", file=sys.stderr, flush=True)


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed.

    Raises:
        VmError: it did not; with the end of what it said.
    """
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise VmError(f"{Path(command[0]).name} failed: {result.stderr.strip()[-2000:]}")
    return result.stdout


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel; virtme-ng finds the modules beside the image by itself."""

    version: str
    image: Path


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shaper" / "vm"


def virtme_ng(cache: Path) -> Path:
    """The `vng` program, in an environment that is not the project's."""
    folder = cache / VIRTME_NG.replace("==", "-")
    program = folder / "bin" / "vng"
    if not program.is_file():
        say(f"installing {VIRTME_NG}")
        run("/usr/bin/python3", "-m", "venv", folder)
        pip = (folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, VIRTME_NG)
    return program


def kernel(wanted: str, cache: Path) -> Kernel:
    """A kernel by its suite (its newest one) or its full version, unpacked into the cache.

    mmdebstrap's `extract` unpacks packages without installing them, from a suite that need not be
    the host's.
    """
    by_version = wanted[:1].isdigit()
    suite, package = (
        (SUITE, f"linux-image-{wanted}") if by_version else (wanted, "linux-image-amd64")
    )
    tree = cache / "kernels" / wanted
    if not tree.is_dir():
        say(f"fetching the kernel: {package} of {suite}")
        tree.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".new-") as scratch:
            fresh = Path(scratch) / "tree"
            run("mmdebstrap", "--quiet", "--variant=extract", f"--include={package}", suite, fresh)
            (release,) = (path.name for path in (fresh / "lib/modules").iterdir())
            run("/sbin/depmod", "-b", fresh, release)
            keep = Path(scratch) / "keep"
            (keep / "lib/modules").mkdir(parents=True)
            (fresh / "lib/modules" / release).rename(keep / "lib/modules" / release)
            (fresh / "boot").rename(keep / "boot")
            keep.rename(tree)
    images = list((tree / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise VmError(f"{tree} holds no kernel: remove it and run this again")
    return Kernel(images[0].name.removeprefix("vmlinuz-"), images[0])


def root_image(cache: Path) -> Path:
    """An ext4 image of a minimal system with the packages of a lab machine."""
    packages = sorted({*run(ROOT / "scripts/setup", "--list").split(), *IMAGE_PACKAGES})
    key = hashlib.sha256(" ".join([SUITE, IMAGE_SIZE, *packages]).encode()).hexdigest()[:12]
    image = cache / f"root-{key}.img"
    if image.is_file():
        return image
    say(f"building a {SUITE} root image; this takes a minute, once")
    for old in cache.glob("root-*.img"):
        old.unlink()
    with tempfile.TemporaryDirectory(dir=cache, prefix="root-") as scratch:
        tree, fresh = Path(scratch) / "tree", Path(scratch) / "image"
        options = ("--quiet", "--variant=minbase", f"--include={','.join(packages)}")
        run("mmdebstrap", *options, SUITE, tree)
        run(*MAKE_DISK, "-d", tree, fresh, IMAGE_SIZE)
        fresh.rename(image)
    return image


def work_disk(folder: Path) -> Path:
    """A disk with the project as it is now, its environment included."""
    stage, disk = folder / "stage", folder / "work.img"
    skip = shutil.ignore_patterns(".git", ".cache", ".hypothesis", ".*_cache")
    shutil.copytree(ROOT, stage, symlinks=True, ignore=skip)
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-L",
        WORK_LABEL,
        "-d",
        stage,
        disk,
        "2G",
    )
    shutil.rmtree(stage)
    return disk


def shared_objects(cache: Path) -> Path:
    """A folder with the programs that this host compiled, for the guest to use and to add to."""
    folder = cache / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        if time.time() - old.stat().st_mtime > OBJECT_DAYS * 86400:
            old.unlink()
    host = Path("/var/cache/shaper/objects")
    if os.access(host, os.R_OK | os.X_OK):
        for path in host.glob("*.json"):
            shutil.copy(path, folder)
    return folder


@dataclass(frozen=True, slots=True)
class Machine:
    """What one boot needs."""

    vng: Path
    kernel: Kernel
    image: Path
    disk: Path
    objects: Path

    def command(self, job: Sequence[str]) -> list[str]:
        """`vng …` that boots, runs one job of scripts/vm-guest and exits with its code."""
        guest = shlex.quote(str(ROOT))
        inside = (
            f"mkdir -p {guest} && mount -L {WORK_LABEL} {guest}"
            f" && exec {guest}/scripts/vm-guest /mnt {shlex.join(job)}"
        )
        return [
            str(self.vng),
            *("--disable-kvm", "--cpus", "2", "--memory", "3G"),
            *("--run", str(self.kernel.image), "--user", "root", "--cwd", "/"),
            *("--rw", "--root-disk", str(self.image), "--root-fstype", "ext4"),
            *("--disk", str(self.disk), "--qemu-opts=-snapshot"),  # no write reaches a disk
            f"--rwdir=/mnt={self.objects}",
            "--",
            inside,
        ]


def boot(machine: Machine, job: Sequence[str], deadline: float) -> int:
    """Runs one job in a fresh boot, its output passed on; gives its exit code."""
    begin = time.monotonic()
    say(f"booting Linux {machine.kernel.version} for: {shlex.join(job)}")
    # Pipes, because virtme-ng opens its outputs anew by name and would overwrite a file.
    process = subprocess.Popen(
        machine.command(job),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": f"{machine.vng.parent}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    try:
        _pass_on(process, deadline)
        code = process.wait(timeout=STOP_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=STOP_S)
    say(f"{job[0]}: exit {code} after {time.monotonic() - begin:.0f} s")
    return code


def _pass_on(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Copies both outputs to ours until they end. Raises VmError at the deadline."""
    with selectors.DefaultSelector() as selector:
        for pipe, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, target)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready:
                raise VmError("the time is up (see --timeout)")
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                key.data.buffer.write(chunk)
                key.data.flush()
                if not chunk:
                    selector.unregister(key.fileobj)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/vm-test", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--kernel",
        default=SUITE,
        metavar="VERSION|SUITE",
        help="a Debian suite, whose newest kernel is taken, or a version such as 6.1.0-56-amd64"
        " (default: %(default)s)",
    )
    parser.add_argument("--demo", action="store_true", help="only the demo")
    parser.add_argument(
        "--tests",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENT",
        help=f"only the tests, with these arguments for pytest (default: {' '.join(TESTS)})",
    )
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="only this command, in the project's folder, to look around",
    )
    parser.add_argument(
        "--timeout", type=int, default=40, metavar="MINUTES", help="of the whole run (default: 40)"
    )
    return parser.parse_args()


def jobs(options: argparse.Namespace) -> list[tuple[str, ...]]:
    tests = ("tests", *(options.tests or TESTS))
    demo = ("demo", *DEMO_OPTIONS)
    if options.run:
        return [("run", *options.run)]
    if options.demo:
        return [demo]
    return [tests] if options.tests is not None else [tests, demo]


def main() -> int:
    options = parse_arguments()
    deadline = time.monotonic() + options.timeout * 60
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays behind
    cache = cache_folder()
    try:
        if sys.version_info[:2] != SUITE_PYTHON:
            raise VmError(f"the guest is {SUITE}; .venv must be of its Python {SUITE_PYTHON}")
        cache.mkdir(parents=True, exist_ok=True)
        vng, booted, image = virtme_ng(cache), kernel(options.kernel, cache), root_image(cache)
        with tempfile.TemporaryDirectory(dir=cache, prefix="run-") as scratch:
            disk = work_disk(Path(scratch))
            machine = Machine(vng, booted, image, disk, shared_objects(cache))
            codes = [boot(machine, job, deadline) for job in jobs(options)]
    except VmError as error:
        say(str(error))
        return 1
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
