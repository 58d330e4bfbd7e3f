"""Fixtures of the parity tests: the core behind a pipe, and random checkpoints."""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import checkpoints

# The models are tiny: threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def core(root, tmp_path_factory):
    """core(model_dir, requests, dtype="float64", max_rows=...) -> the answers of tests/tools/eval_tool.cc, which explains them.

    EPO_TEST_DEVICE names the device, if it is not the CPU.
    """
    tool = pathlib.Path(os.environ.get("EPO_BIN_DIR", root / "build/release/bin")).resolve() / "eval_tool"
    assert tool.exists(), f"{tool} is missing: build it, or set EPO_BIN_DIR"

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    tensors = tmp_path_factory.mktemp("core") / "tensors"

    def load(place):
        if place.keys() != {"offset", "shape"}:
            return place
        count = math.prod(place["shape"])
        values = np.fromfile(tensors, np.float64, count, offset=8 * place["offset"])
        return torch.from_numpy(values.reshape(place["shape"]))

    def ask(model, requests, **settings):
        device = os.environ.get("EPO_TEST_DEVICE", "cpu")
        call = {"model": str(model), "device": device, "tensors": str(tensors), "requests": requests, **settings}
        done = subprocess.run([tool], input=json.dumps(call), capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout, object_hook=load)["answers"]
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
