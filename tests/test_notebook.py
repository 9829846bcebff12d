"""The notebook for the readers of the course, executed in a finished workspace: its stages do not run again."""

import os
import re
from pathlib import Path

import pytest
from helpers import ROOT, find_programs, git

from stages.common.tables import read_json

NOTEBOOK = ROOT / "docs/course.ipynb"


def test_notebook_is_committed_without_outputs() -> None:
    for cell in read_json(NOTEBOOK)["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_imports_of_the_notebook() -> None:
    cells = [cell for cell in read_json(NOTEBOOK)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    imports = [line for line in lines if re.match(r"(import|from) ", line)]
    assert any("stages." in line for line in imports)
    exec("\n".join(imports), {})


@pytest.mark.rare
@pytest.mark.slow
def test_course_notebook_runs(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", find_programs(os.environ["PATH"], fork=True))
    monkeypatch.setenv("PYTHONPATH", str(copied))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    Path("docs").mkdir()
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": "docs"}}).execute()
    if folder := os.environ.get("SAVE_NOTEBOOK"):
        nbformat.write(notebook, Path(folder, "executed.ipynb"))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "params.yaml as it is" in printed
    assert "error:" not in printed.lower()
    assert re.search(r"after: 16000 Hz, mean -?0\.000, variance 1\.000", printed)
    shown = [form for output in outputs for form in output.get("data", {})]
    assert shown.count("image/png") == 2
    assert sum("<audio" in str(output.get("data", {}).get("text/html", "")) for output in outputs) == 4
    shown_last = {cell.source.splitlines()[-1]: cell.outputs[-1] for cell in notebook.cells if cell.get("outputs")}
    epochs = shown_last['read_epochs(Path("metrics/train")).round(3)'].data["text/plain"]
    predictions = notebook.cells[-1].outputs[-1].data["text/plain"]
    assert "eval_accuracy" in epochs
    assert len(epochs.splitlines()) == 2 + 3
    assert "score" in predictions
    accuracy = read_json(Path("metrics/metrics.json"))["accuracy"]
    assert f"accuracy {accuracy:.3f}" in printed
    assert git(copied, "status", "--porcelain", "--", ".", ":!docs") == ""
