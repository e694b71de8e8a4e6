"""The example notebook is executed over what a real sweep has just written."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "a_study.ipynb"


@pytest.fixture(scope="module")
def executed(swept: Any) -> Any:
    """The notebook, run in the folder of the sweep; the cell with the study's name is followed by another name."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (place,) = (at for at, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell('name = "small"'))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(swept.folder)}}).execute()
    return notebook


def outputs(notebook: Any, kind: str) -> str:
    """Return what all cells have put out of a kind, text or `text/html`."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    streams = [output.text for output in found if output.output_type == "stream"]
    return "".join(streams if kind == "stream" else [output.get("data", {}).get(kind, "") for output in found])


@pytest.mark.slow
def test_notebook_shows_the_best_of_a_real_sweep(executed: Any, swept: Any) -> None:
    (best, *_) = json.loads(swept.run("compare", "small", "--format", "json").stdout)

    assert f"trial {best['trial']}: val/acc = {best['value']}" in outputs(executed, "stream")
    assert str(best["params"]["optimizer.lr"])[:8] in outputs(executed, "text/plain")


@pytest.mark.slow
def test_notebook_has_its_tables_and_its_plot(executed: Any) -> None:
    html = outputs(executed, "text/html")

    assert "<td>complete</td>" in html and "params.optimizer.lr" in html and ">small</th>" in html
    assert len(outputs(executed, "image/png")) > 5000


def test_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]

    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
