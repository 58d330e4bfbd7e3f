"""scripts/bundle: the programs run with torch's libraries, the C library's and the bundle's own."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.release
C_LIBRARY = re.compile(r"/(ld-linux[^/]*|lib(c|m|dl|pthread|rt|resolv|util))\.so[.0-9]*$")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run([ROOT / "scripts/bundle", folder], check=True)
    return folder


@pytest.mark.parametrize("program", ["epo", "epo-server", "epo-bench"])
def test_brings_what_the_machine_may_lack(bundle, program):
    torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
    path = {**os.environ, "LD_LIBRARY_PATH": f"{torch}:{bundle}/lib"}
    listed = subprocess.run(["ldd", bundle / "bin" / program], env=path, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.findall(r"=> (/\S+)", listed)
    assert found and "not found" not in listed
    strangers = [f for f in found if "/site-packages/" not in f and not f.startswith(str(bundle)) and not C_LIBRARY.search(f)]
    assert not strangers


def test_runs(bundle):
    environment = {"PATH": os.environ["PATH"], "HOME": str(bundle), "PYTHON": sys.executable}
    done = subprocess.run([bundle / "run", "epo-server", "--version"], env=environment, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stdout.startswith("epo-server ")


def test_says_when_python_has_no_torch(bundle):
    environment = {"PATH": os.environ["PATH"], "PYTHON": "/usr/bin/python3"}
    done = subprocess.run([bundle / "run", "epo", "--version"], env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "has no torch; set PYTHON" in done.stderr
