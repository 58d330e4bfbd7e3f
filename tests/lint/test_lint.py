"""What machines can check in the sources: the wire contract's style, C++ formatting, shell scripts, the Python client's types."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig


def tracked(root, *patterns):
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "ls-files", "-z", "--", *patterns],
        cwd=root, check=True, capture_output=True, text=True,
    )
    files = [name for name in listing.stdout.split("\0") if name and (root / name).is_file()]
    assert files, f"no tracked file matches {patterns}"
    return files


def check(command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, f"{command[0]} exited with {result.returncode}\n{result.stdout}{result.stderr}"


def test_protos_follow_buf_standard(root, tmp_path):
    shutil.copytree(root / "proto", tmp_path / "proto")
    # The imports that do not come with protoc, from the wheel googleapis-common-protos.
    imports = pathlib.Path(sysconfig.get_paths()["purelib"]) / "google/rpc"
    (tmp_path / "proto/google/rpc").mkdir(parents=True)
    for proto in imports.glob("*.proto"):
        shutil.copy(proto, tmp_path / "proto/google/rpc")
    check([str(pathlib.Path(sysconfig.get_paths()["scripts"]) / "buf"), "lint"], cwd=tmp_path / "proto")


def test_cpp_is_formatted(root):
    files = tracked(root, "*.cc", "*.cu", "*.h")
    result = subprocess.run(["clang-format", "--dry-run", *files], cwd=root, check=True, capture_output=True, text=True)
    unformatted = {line.split(":")[0] for line in result.stderr.splitlines() if "-Wclang-format-violations" in line}
    assert not unformatted, f"run clang-format -i {' '.join(sorted(unformatted))}"


def test_shell_scripts_pass_shellcheck(root):
    scripts = [
        name for name in tracked(root, "scripts/*", ".ci/*", "deploy/*", "tests/fuzz/run_*")
        if name.endswith(".sh") or (root / name).open("rb").readline().startswith((b"#!/usr/bin/env bash", b"#!/bin/sh"))
    ]
    check(["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts], cwd=root)


def test_python_client_passes_mypy(root, client_package):
    """As installed, with the types of its generated modules."""
    config = root / "client/python/pyproject.toml"
    cache = root / ".cache/mypy"
    check([sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, "--package", "epo_client"], cwd=client_package)
