"""Assemble the model repository: the model, its card, its metrics and training logs; and a Space, a web page for it.

Push them if requested.

The config.json of the model gets the key `answer`: the temperature and the threshold that `evaluate` set.

Reads   params.yaml: publish; models/finetuned/; metrics/; the source.json of data/raw/ and models/base/
Writes  models/published/, models/space/
Run     python -m stages.publish
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.answers import Answering
from stages.common.errors import UserError, damaged, reading
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import (
    BASE_SOURCE,
    DATASET_SOURCE,
    EPOCHS,
    FIGURE,
    FINETUNED,
    METRICS,
    PREDICTIONS,
    PUBLISHED,
    RUNS,
    SPACE,
    SPLIT_COUNTS,
    TRAINING,
)
from stages.common.stage import run_stage
from stages.publish.params import PublishParams


def check_accuracy(min_accuracy: float | None, accuracy: float) -> None:
    """Raise UserError if the test accuracy is too low to push."""
    if min_accuracy is not None and accuracy < min_accuracy:
        raise UserError(
            f"test accuracy {accuracy} is below {min_accuracy}; lower it, or set publish.push: false",
            key="publish.min_accuracy",
        )


def open_model(folder: Path) -> None:
    """Open the model and its feature extractor, so that a damaged model is never pushed.

    Raises:
        UserError: a file is missing or damaged.
    """
    from stages.common.classifier import load_classifier
    from stages.common.configs import load_config, load_extractor

    load_classifier(folder, load_config(folder), new_head=False)
    load_extractor(folder)


def check_copied_files() -> None:
    """Open the files that are copied as they are, as far as that takes no time.

    Raises:
        UserError: a file is damaged.
    """
    from PIL import Image
    from safetensors import safe_open

    from stages.common.tables import read_table

    read_table(PREDICTIONS)
    with reading(FIGURE), Image.open(FIGURE) as figure:
        figure.verify()
    for file in FINETUNED.glob("*.safetensors"):
        with reading(file), safe_open(file, "np"):
            pass
    if not any(RUNS.iterdir()):
        raise damaged(RUNS, "it is empty")


def write_answering(folder: Path, answer: dict[str, Any]) -> None:
    """Add the key `answer` to the config.json of a model. answer: the same key of metrics.json."""
    from stages.common.tables import read_json

    config = read_json(folder / "config.json")
    config["answer"] = {name: answer[name] for name in Answering._fields}
    # As Transformers writes it, so that the files differ in one key.
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_onnx(folder: Path) -> None:
    """Export the model in a folder to ONNX, and compare it with PyTorch on generated clips."""
    from stages.common.tables import read_json
    from stages.publish.onnx_export import export_model, make_clips
    from stages.publish.onnx_session import MODEL_FILE

    sampling_rate = read_json(folder / "preprocessor_config.json")["sampling_rate"]
    file = folder / MODEL_FILE
    file.parent.mkdir()
    difference = export_model(folder, file, make_clips(sampling_rate, [1.0, 3.0]))
    print(f"{MODEL_FILE}: logits differ from PyTorch's by at most {difference:.1g} of their range, on generated clips")


def git_commit() -> str:
    """Return the commit of the checkout, 7 digits, followed by + if tracked files differ from it."""
    git = partial(subprocess.run, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "--short=7", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> Callable[[], None] | None:
    """Assemble the repository, and return the function that pushes it, if requested."""
    from stages.common import hub
    from stages.common.tables import read_json
    from stages.publish.card import write_card
    from stages.publish.space_files import write_space

    params = load_params("publish", PublishParams)
    require_files(TRAINING, METRICS, PREDICTIONS, FIGURE, SPLIT_COUNTS, EPOCHS, RUNS, DATASET_SOURCE, BASE_SOURCE)
    accuracy = read_json(METRICS)["accuracy"]
    check_copied_files()
    owner = "your-name"
    if params.push:
        check_accuracy(params.min_accuracy, accuracy)
        owner = hub.token_owner(params.name)
    repo = params.name if "/" in params.name else f"{owner}/{params.name}"
    with atomic_outputs(PUBLISHED, SPACE) as [folder, space]:
        shutil.copytree(FINETUNED, folder)
        write_answering(folder, read_json(METRICS)["answer"])
        for file in (METRICS, PREDICTIONS, FIGURE):
            shutil.copyfile(file, folder / file.name)
        shutil.copytree(RUNS, folder / RUNS.name)
        write_card(folder / "README.md", repo)
        if params.onnx:
            write_onnx(folder)
        write_space(space, repo)
    print(f"{PUBLISHED}: {params.name}")
    if not params.push:
        return None

    def push() -> None:
        open_model(PUBLISHED)
        commit = git_commit()
        message = f"Publish git commit {commit}, test accuracy {accuracy:.3f}"
        tag = f"git-{commit.rstrip('+')}"
        print(hub.push_folder(PUBLISHED, repo, params.private, message, tag))
        if params.space:
            print(hub.push_folder(SPACE, repo, params.private, message, tag, kind="space"))
            if params.private:
                print("The Space may not read the private model: add your token as its secret HF_TOKEN")

    return push


if __name__ == "__main__":
    run_stage(main)
