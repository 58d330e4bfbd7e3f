#!/usr/bin/env python3
"""Runs the steps of the Dockerfile where there is no container engine: each stage in a chroot that debootstrap makes, then the server as
the image would start it, its health check, a job, and its end. Takes 10 to 30 minutes and 10 GB.

usage: deploy/check_dockerfile.py [--target cpu|gpu] [--dir DIR]     (as root, on Debian, with the package debootstrap)

DIR (default build/dockerfile) holds the chroots and log, the output of the steps. What lets apt and pip reach this machine's package
registries is carried in: apt's sources, certificates, pip.conf and its variables.
"""

import argparse
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import string
import struct
import subprocess
import sys
import time
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
FORBIDDEN = ["cc", "gcc", "g++", "c++", "clang", "cmake", "ninja", "make", "ld", "python3", "pip", "git"]
MODEL = ROOT / "tests/parity/phi-tiny"
HEALTHY_SECONDS = 300
BASE = "base"


class Problem(Exception):
    """What the person who called is told."""


# The Dockerfile


def instructions(text):
    """[(line number, INSTRUCTION, value)] with continued lines joined."""
    found, pending, start = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        name, _, value = (pending + line).strip().partition(" ")
        found.append((start, name.upper(), value.strip()))
        pending = ""
    if pending:
        raise Problem(f"Dockerfile:{start}: the last line is continued")
    return found


def command(value, shell):
    """The argument list of a RUN, CMD, ENTRYPOINT or SHELL."""
    if value.startswith("["):
        return json.loads(value)
    return [*shell, value]


def stages(text):
    """{name: stage} in the file's order; a stage has .base and .steps, a list of (line number, INSTRUCTION, value)."""
    found = {}
    for number, name, value in instructions(text):
        if name == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", value)
            if not match:
                raise Problem(f"Dockerfile:{number}: FROM {value}: expected FROM IMAGE AS NAME")
            stage = found[match[2]] = types.SimpleNamespace(base=match[1], steps=[])
        elif name not in APPLY:
            raise Problem(f"Dockerfile:{number}: {name} is not known to {pathlib.Path(__file__).name}")
        elif not found:
            raise Problem(f"Dockerfile:{number}: {name} stands before FROM")
        else:
            stage.steps.append((number, name, value))
    return found


def copy_parts(value):
    """(stage or None, sources, destination) of a COPY."""
    *sources, destination = shlex.split(value)
    stage = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else None
    return stage, sources, destination


# Chroots


class Image:
    """A stage as far as it has been made: a root directory and what the instructions set."""

    def __init__(self, root, like=None):
        self.root = root
        self.env = dict(like.env) if like else {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.shell = list(like.shell) if like else ["/bin/sh", "-c"]
        self.workdir = like.workdir if like else "/"
        self.user = like.user if like else "0:0"
        self.volumes = list(like.volumes) if like else []
        self.health = list(like.health) if like else []
        self.entrypoint = list(like.entrypoint) if like else []
        self.cmd = list(like.cmd) if like else []

    def path(self, inside):
        """Where a path of the image is on this machine."""
        return self.root / str(pathlib.PurePosixPath(self.workdir) / inside).lstrip("/")

    def command(self, arguments, extra_env=()):
        """What runs the arguments in the image."""
        variables = [f"{name}={value}" for name, value in {**self.env, **dict(extra_env)}.items()]
        inner = ["/usr/bin/env", "-i", *variables, "/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *arguments]
        return ["chroot", f"--userspec={self.user}", str(self.root), *inner]


def apply_run(image, value, builder):
    builder.run(image.command(command(value, image.shell), builder.registry_env))


def apply_copy(image, value, builder):
    stage, sources, destination = copy_parts(value)
    target = image.path(destination)
    for source in sources:
        if stage:
            builder.run(["cp", "-a", f"{builder.stage(stage).path(source)}/.", str(target)])
            continue
        files = builder.tracked(source)
        folder = (ROOT / source).is_dir()
        for name in files:
            # As an engine does it: of a folder its content is copied.
            relative = os.path.relpath(name, source) if folder else os.path.basename(name)
            place = target / relative if folder or destination.endswith("/") or len(sources) > 1 else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)


def apply_env(image, value, _):
    for assignment in shlex.split(value):
        name, _, text = assignment.partition("=")
        image.env[name] = string.Template(text).substitute(image.env)


def apply_workdir(image, value, _):
    image.workdir = value
    image.path(".").mkdir(parents=True, exist_ok=True)


def apply_healthcheck(image, value, _):
    image.health = command(value.partition("CMD ")[2], image.shell)


APPLY = {
    "RUN": apply_run, "COPY": apply_copy, "ENV": apply_env, "WORKDIR": apply_workdir, "HEALTHCHECK": apply_healthcheck,
    "SHELL": lambda image, value, _: setattr(image, "shell", json.loads(value)),
    "USER": lambda image, value, _: setattr(image, "user", value),
    "VOLUME": lambda image, value, _: image.volumes.append(value),
    "ENTRYPOINT": lambda image, value, _: setattr(image, "entrypoint", json.loads(value)),
    "CMD": lambda image, value, _: setattr(image, "cmd", json.loads(value)),
    "EXPOSE": lambda *_: None,
}


class Builder:
    """Makes stages below `folder`, which is emptied save for what debootstrap made."""

    def __init__(self, text, folder):
        self._stages = stages(text)
        self._folder = folder
        self._made = {}
        self.registry_env = {name: value for name, value in os.environ.items()
                             if name.startswith("PIP_") or re.search(r"_CERT_FILE|_CERT$|CA_BUNDLE|_proxy$|_PROXY$|SSL_CERT_DIR", name)}
        folder.mkdir(parents=True, exist_ok=True)
        old = [str(path) for path in folder.iterdir() if path.name != BASE]
        subprocess.run(["rm", "-rf", "--one-file-system", *old], check=True)
        self.log = open(folder / "log", "w")

    def run(self, arguments):
        result = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        if result.returncode:
            self.log.flush()
            tail = "\n".join((self._folder / "log").read_text(errors="replace").splitlines()[-40:])
            raise Problem(f"{shlex.join(map(str, arguments))} exited with {result.returncode}\n{tail}")

    def tracked(self, source):
        """The files at `source` that an engine would be given: those of git, and not ignored."""
        listing = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard", "--", source],
                                 cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        files = [name for name in listing if name and (ROOT / name).exists()]
        if not files or source not in copied(ROOT / ".dockerignore"):
            raise Problem(f"COPY {source}: there is nothing, or .dockerignore leaves it out")
        return files

    def stage(self, name):
        if name in self._made:
            return self._made[name]
        if name not in self._stages:
            return self._base(name)
        stage = self._stages[name]
        base = self.stage(stage.base)
        image = self._copy(base, name)
        for number, instruction, value in stage.steps:
            started = time.monotonic()
            APPLY[instruction](image, value, self)
            print(f"{name}: Dockerfile:{number} {instruction} {value[:60]}: {time.monotonic() - started:.0f} s", flush=True)
        self._made[name] = image
        return image

    def _copy(self, base, name):
        image = Image(self._folder / name, base)
        self.run(["cp", "-ax", "--reflink=auto", str(base.root), str(image.root)])
        for folder in ("proc", "dev"):
            self.run(["mount", "--rbind", f"/{folder}", str(image.root / folder)])
        return image

    def _base(self, name):
        if not name.startswith("debian:12"):
            raise Problem(f"FROM {name}: only debian:12 can be made without an engine")
        root = self._folder / BASE
        if not root.exists():
            self._debootstrap(root)
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        # The second of the certificates for those that the package ca-certificates gathers when it is installed.
        for path in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/ssl/certs", "usr/local/share/ca-certificates",
                     "etc/pip.conf", "etc/resolv.conf", "etc/hosts"):
            source, target = pathlib.Path("/", path), root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, target)
        self._made[name] = Image(root)
        return self._made[name]


    def _debootstrap(self, root):
        started = time.monotonic()
        unfinished = root.with_name("unfinished")
        sources = pathlib.Path("/etc/apt/sources.list.d/debian.sources")
        mirror = re.search(r"^URIs: *(\S+)", sources.read_text(), re.M) if sources.exists() else None
        self.run(["debootstrap", "--variant=minbase", "bookworm", str(unfinished), *([mirror[1]] if mirror else [])])
        unfinished.rename(root)
        print(f"debootstrap: {time.monotonic() - started:.0f} s", flush=True)


def copied(dockerignore):
    """What .dockerignore, a list of exceptions from *, lets be copied."""
    lines = [line for line in dockerignore.read_text().splitlines() if line and not line.startswith("#")]
    if lines[0] != "*" or not all(line.startswith("!") for line in lines[1:]):
        raise Problem(".dockerignore: expected * and what is copied all the same")
    return [line[1:] for line in lines[1:]]


# The image's start


def private_network():
    """Gives this process and its children a network of their own: the image's ports may be taken on this machine."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise Problem(f"unshare: {os.strerror(ctypes.get_errno())}")
    with socket.socket() as s:
        # SIOCSIFFLAGS: IFF_UP for the loopback.
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))


def check_image(image, builder):
    """Starts the image on a tiny model as an engine would, with a root that cannot be written."""
    found = [name for name in FORBIDDEN for folder in image.env["PATH"].split(":") if os.path.lexists(image.path(folder) / name)]
    if found:
        raise Problem(f"the image holds {', '.join(found)}")
    if image.user.split(":")[0] in ("0", "root"):
        raise Problem("the image runs as root")
    size = subprocess.run(["du", "-sxm", str(image.root)], check=True, capture_output=True, text=True).stdout.split()[0]
    print(f"the image holds {size} MB", flush=True)

    model, root = image.path("/model"), str(image.root)
    model.mkdir()
    builder.run(["mount", "--bind", root, root])
    for volume in [*image.volumes, "/proc", "/dev"]:
        source = str(image.path(volume)) if volume in image.volumes else volume
        builder.run(["mount", "--rbind", source, str(image.path(volume))])
    builder.run(["mount", "--bind", str(MODEL), str(model)])
    builder.run(["mount", "-o", "remount,bind,ro", root])
    private_network()

    server = subprocess.Popen(image.command([*image.entrypoint, *image.cmd]), stdout=builder.log, stderr=builder.log)
    try:
        deadline = time.monotonic() + HEALTHY_SECONDS
        while subprocess.run(image.command(image.health), stdout=builder.log, stderr=builder.log).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise Problem(f"the server did not become healthy; see {builder.log.name}")
            time.sleep(1)
        print(f"healthy: {shlex.join(image.health)}", flush=True)
        submit = ["epo", "submit", "--layer", "2", "--neuron", "5", "--tokens", "6", "--iterations", "3", "--wait"]
        builder.run(image.command(submit))
        print(f"done: {shlex.join(submit)}", flush=True)
        server.terminate()
        if code := server.wait(60):
            raise Problem(f"the server exited with {code} after SIGTERM; see {builder.log.name}")
        print("SIGTERM: exit 0", flush=True)
    finally:
        server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cpu", help="a stage of the Dockerfile")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build/dockerfile")
    options = parser.parse_args()
    try:
        text = (ROOT / "Dockerfile").read_text()
        if options.target not in stages(text):
            raise Problem(f"--target {options.target}: the Dockerfile's stages are {', '.join(stages(text))}")
        if os.geteuid() != 0:
            raise Problem("run as root: it needs debootstrap, chroot and mount")
        if not shutil.which("debootstrap"):
            raise Problem("debootstrap is missing: apt-get install debootstrap")
        # Mounts of its own: they end with the process, and rm never meets them.
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
            raise Problem(f"unshare: {os.strerror(ctypes.get_errno())}")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        builder = Builder(text, options.dir.resolve())
        check_image(builder.stage(options.target), builder)
    except Problem as problem:
        sys.exit(f"{pathlib.Path(__file__).name}: {problem}")


if __name__ == "__main__":
    main()
