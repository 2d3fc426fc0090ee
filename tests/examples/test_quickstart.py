"""The notebook runs from its first cell to its last in a fresh folder, and its output can be read."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs(notebook):
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.slow
def test_it_runs(notebook, tmp_path):
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    texts = [output.get("text") or output.data.get("text/plain", "") for output in outputs]
    shown = "\n".join(texts)
    assert "step 1/2" in shown and "step 2/2" in shown and "held-out ocr after" in shown
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 16
    assert (tmp_path / "runs/quickstart/report.html").is_file()
