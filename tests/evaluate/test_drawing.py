import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ANSWER, HARD_NAMES, ROOT

from stages.evaluate.drawing import find_fonts, label_text, shorten
from stages.evaluate.figures import Result, draw_confusion, render_svg, save_result
from stages.evaluate.metrics import reliability

DRAW = """
import pickle
from pathlib import Path
from stages.evaluate.figures import draw_confusion, render_svg, save_result
result = pickle.loads(Path("result.pickle").read_bytes())
save_result(Path("result.png"), result, "title")
Path("result.svg").write_bytes(render_svg(draw_confusion, result))
"""


def make_result(labels: list[str]) -> Result:
    """One clip of each label, all correct."""
    probabilities = np.full((len(labels), len(labels)), 0.2 / len(labels))
    np.fill_diagonal(probabilities, 0.8)
    table = pd.DataFrame({"clip": labels, "label": labels, "prediction": labels})
    epochs = pd.DataFrame({"eval_accuracy": [0.5], "eval_loss": [1.0], "train_loss": [1.0]}, index=[1])
    table = table.join(pd.DataFrame(probabilities, columns=labels))
    return Result(epochs, 1, table, reliability(probabilities, np.arange(len(labels))), ANSWER)


def draw_elsewhere(folder: Path, result: Result, environment: dict[str, str]) -> tuple[bytes, bytes]:
    """Draw in another process, which must print nothing; the bytes of result.png and of an SVG figure."""
    folder.mkdir()
    (folder / "result.pickle").write_bytes(pickle.dumps(result))
    (folder / "matplotlibrc").write_text(
        "text.usetex: True\nfont.size: 30\nfont.family: serif\nfigure.dpi: 30\nno: 1\n"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MPL", "XDG"))}
    variables = kept | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    return (folder / "result.png").read_bytes(), (folder / "result.svg").read_bytes()


@pytest.mark.rare
def test_environment_changes_no_figure(tmp_path: Path) -> None:
    """A notebook's backend, a user's matplotlibrc, and a HOME in which nobody can write."""
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "HOME": "/proc/nowhere"}
    result = make_result(["$x$", "y"])
    png, svg = draw_elsewhere(tmp_path / "elsewhere", result, environment)
    save_result(tmp_path / "result.png", result, "title")
    assert png == (tmp_path / "result.png").read_bytes()
    assert svg == render_svg(draw_confusion, result)


@pytest.mark.parametrize("text", ["x" * 255, "W" * 255, "語" * 80, "m" * 29])
def test_long_labels_are_shortened(text: str) -> None:
    assert len(shorten(text)) <= 40
    start, end = shorten(f"1{text}2").split("…")
    assert start[0] + end[-1] == "12"


def test_other_labels_are_not_shortened() -> None:
    for text in ("x" * 40, "a_label (of some length), of a clip", "日本語"):
        assert label_text(text) == text


def test_fonts_have_all_characters_but_the_missing() -> None:
    """Latin letters need none, and no font has those for private use."""
    assert find_fonts(["blues", "é", "Ж", "α"]) == (["sans-serif"], set())
    families, missing = find_fonts(["a", "\U0001d49e", "\U000f0000", "\n"])
    assert missing == {"\U000f0000"}
    assert len(families) == 2  # matplotlib brings one with the script C
    assert label_text("\U000f0000\n", missing) == r"\U000f0000\n"


@pytest.mark.slow
def test_hard_labels_are_drawn_with_one_line_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_result(tmp_path / "result.png", make_result(["\U000f0000", *HARD_NAMES[-12:]]), "title")
    printed = capsys.readouterr()
    assert printed.out.startswith("warning: no font of this machine has all characters of the labels")
    assert (printed.out.count("\n"), printed.err) == (1, "")
    assert printed.out.isascii()
