"""Write the files of the Space: a web page for the model, which needs nothing else of this project."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCard, SpaceCardData

from stages.common.paths import DATASET_SOURCE, TRAINING
from stages.common.tables import read_json

SOURCE = Path(__file__).with_name("space")
FILES = ("app.py", "page.css", "page.js")
GRADIO = "6.31.0"  # this project has it only with the extra demo
PACKAGES = ("numpy", "pillow", "soundfile", "soxr", "torch", "transformers")


def set_constants(code: str, values: dict[str, Any]) -> str:
    """Return the code of a module with other values of constants, each of which has a line at its top."""
    for name, value in values.items():
        line = f"{name} = {json.dumps(value)}"
        code, found = re.subn(rf'^{name} = ("[^"]*"|[\d.]+)', line, code, flags=re.MULTILINE)
        assert found == 1, name
    return code


def write_space(folder: Path, repo: str) -> None:
    """Write a Space. repo: of the model, owner/name."""
    training = read_json(TRAINING)
    clip_seconds = float(training["resample_encode"]["max_seconds"])
    window_seconds = float(training["train"]["window_seconds"] or min(3.0, clip_seconds))
    folder.mkdir()
    for name in FILES:
        shutil.copyfile(SOURCE / name, folder / name)
    code = (SOURCE / "app.py").read_text(encoding="utf-8")
    values = {"MODEL": repo, "CLIP_SECONDS": clip_seconds, "WINDOW_SECONDS": window_seconds}
    (folder / "app.py").write_text(set_constants(code, values), encoding="utf-8")
    pins = [f"gradio=={GRADIO}", *(f"{package}=={version(package).split('+')[0]}" for package in PACKAGES)]
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    data = read_json(DATASET_SOURCE)
    card = SpaceCardData(
        title=repo.split("/")[-1],
        emoji="🎵",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=GRADIO,
        python_version="3.11",
        app_file="app.py",
        pinned=False,
        models=[repo],
        datasets=[data["id"]] if data["source"] == "hub" else None,
        short_description="Upload or record a sound, see its labels over time",
    )
    text = f"---\n{card.to_yaml()}\n---\n\nA web page for [{repo}](https://huggingface.co/{repo}).\n"
    (folder / "README.md").write_text(str(SpaceCard(text)).rstrip() + "\n", encoding="utf-8")
