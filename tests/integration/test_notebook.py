"""The notebook of examples/ from its first cell to its last, and as it is committed."""

import os

import nbclient
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager

# A cell's limit, for a machine that others use too; the whole takes about a minute on two idle cores.
SECONDS = 600
pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def notebook(root):
    return nbformat.read(root / "examples/dreaming.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def kinds(notebook):
    """What each output is: its richest form."""
    order = ["image/png", "text/html", "text/plain"]
    return [next(kind for kind in order if kind in o.data) if "data" in o else o.output_type for o in outputs(notebook)]


def test_the_notebook_runs(root, bin_dir, smollm2_dir, client_package, notebook, tmp_path):
    fresh = nbformat.from_dict(notebook)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    manager = AsyncKernelManager(transport="ipc", ip=str(tmp_path / "kernel"), kernel_name="python3")
    environment = {**os.environ, "EPO_BIN_DIR": str(bin_dir), "PYTHONPATH": str(client_package)}
    # Another module's tests may have set it for themselves; the kernel shows figures by its own.
    environment.pop("MPLBACKEND", None)
    executor = nbclient.NotebookClient(fresh, km=manager, timeout=SECONDS, resources={"metadata": {"path": root / "examples"}})
    executor.execute(env=environment)
    assert kinds(fresh).count("image/png") == 3 and kinds(fresh).count("text/html") == 5
    text = "".join(output.get("text", "") for output in outputs(fresh))
    assert "smollm2-135m: 30 layers of 1536 neurons" in text
    assert "30/30" in text and "8/8" in text and "the server exited with 0" in text


def test_the_committed_notebook_is_executed(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert kinds(notebook).count("image/png") == 3 and kinds(notebook).count("text/html") == 5
    nbformat.validate(notebook)
