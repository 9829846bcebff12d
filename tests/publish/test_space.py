import ast
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from huggingface_hub import SpaceCard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.common.answers import Answering, to_probabilities
from stages.publish.space_files import FILES, GRADIO, set_constants

NAMES = {"PIL": "pillow"}  # imported as -> its package


@pytest.mark.slow
def test_space_files(finished: Path) -> None:
    folder = finished / "models/space"
    assert {file.name for file in folder.iterdir()} == {*FILES, "README.md", "requirements.txt"}
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.sdk_version, card.app_file) == ("gradio", GRADIO, "app.py")
    assert card.models == ["your-name/hubert-demo"]
    code = (folder / "app.py").read_text()
    assert 'MODEL = "your-name/hubert-demo"' in code
    assert "WINDOW_SECONDS = 0.5 " in code
    required = [line.split("==") for line in (folder / "requirements.txt").read_text().splitlines()]
    assert all(version for _, version in required)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {NAMES.get(name, name) for name in imported - sys.stdlib_module_names} <= {name for name, _ in required}


def test_gradio_is_the_version_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["demo"] == [f"gradio=={GRADIO}"]


@pytest.mark.slow
@settings(deadline=None)  # the first call imports gradio
@given(
    arrays(np.float64, 3, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    st.sampled_from([None, 0.0, 1 / 3, 0.5, 0.9]),
    st.sampled_from([None, "a", "noise"]),
)
def test_space_answers_as_the_other_tools(logits: np.ndarray, threshold: float | None, background: str | None) -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    from stages.publish.space.app import find_label
    from tools.page.answers import make_title

    labels, probabilities = ["a", "noise", "b"], to_probabilities(logits)
    answering = Answering(1.5, threshold, background)
    expected = make_title(probabilities, labels, answering, None)
    assert find_label(probabilities, labels, answering._asdict()) == expected


def test_set_constants() -> None:
    code = 'MODEL = "a/b"\nSECONDS = 3.0  # of a window\n'
    assert set_constants(code, {"MODEL": "c/d", "SECONDS": 1.5}) == 'MODEL = "c/d"\nSECONDS = 1.5  # of a window\n'
