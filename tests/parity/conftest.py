"""Fixtures of the parity tests: the core behind a pipe, and random checkpoints."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest


sys.path.insert(0, str(pathlib.Path(__file__).parent))
import checkpoints


@pytest.fixture(scope="session")
def core(root):
    """core(model_dir, requests, dtype="float64", max_rows=...) -> the answers of tests/tools/eval_tool.cc, which explains them."""
    tool = pathlib.Path(os.environ.get("EPO_BIN_DIR", root / "build/release/bin")).resolve() / "eval_tool"
    assert tool.exists(), f"{tool} is missing: build it, or set EPO_BIN_DIR"

    def ask(model, requests, **settings):
        call = {"model": str(model), "requests": requests, **settings}
        done = subprocess.run([tool], input=json.dumps(call), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)["answers"]
        assert len(answers) == len(requests)
        return answers

    return ask


@pytest.fixture(scope="session", params=checkpoints.TINY)
def tiny(request, tmp_path_factory):
    """The directory of each tiny random checkpoint in turn."""
    return checkpoints.write_tiny(tmp_path_factory.mktemp("checkpoint") / request.param, request.param)


@pytest.fixture(scope="session")
def phi2_wide(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "phi2-wide"
    yield checkpoints.write_phi2_wide(path)
    shutil.rmtree(path)  # 0.8 GB
