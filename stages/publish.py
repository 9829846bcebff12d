"""Put together what the Hub would hold: the model, its card, its metrics and training logs; push it if asked.

Reads   params.yaml: publish, train, resample_encode.representation and .precision; models/finetuned/; metrics/;
        the source.json of data/raw/ and models/base/
Writes  models/published/
Run     python -m stages.publish
"""

import json
import shutil
import subprocess
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from pydantic import Field, field_validator

from stages.common import hub
from stages.common.pictures import read_epochs
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole

FINETUNED = Path("models/finetuned")
METRICS = Path("metrics")
SOURCES = {"data": Path("data/raw/source.json"), "base": Path("models/base/source.json")}
PUBLISHED = Path("models/published")
TEMPLATE = Path(__file__).with_name("common") / "model_card.md"


class Params(Section):
    name: str  # of the repo on the Hub, with an owner or, to push into the token's own account, without
    push: bool
    private: bool = True  # of a repo that does not exist yet
    min_accuracy: Number | None = Field(None, ge=0, le=1)  # nothing less is pushed

    @field_validator("name")
    @classmethod
    def _is_a_repo_name(cls, name: str) -> str:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(" ".join(str(error).split())) from None
        return name


def card_data(name: str, data: dict[str, Any], base: dict[str, Any], metrics: dict[str, Any]) -> ModelCardData:
    """The card's metadata: what the Hub's search, leaderboards and widgets read."""
    on_hub = data["source"] == "hub"
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Audio Classification",
            dataset_type=data["id"] if on_hub else data["source"],
            dataset_name=data.get("title", data["id"]),
            dataset_config=data.get("config"),
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=metrics[key],
        )
        for metric, title, key in [("accuracy", "Accuracy", "accuracy"), ("f1", "Macro F1", "macro_f1")]
    ]
    return ModelCardData(
        model_name=name,
        eval_results=results,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "generated_from_trainer"],
        metrics=["accuracy", "f1"],
        license=base["licence"] if base["licence"] != "unknown" else None,
        base_model=base["id"] if base["source"] == "hub" else None,
        datasets=[data["id"]] if on_hub else None,
    )


def write_card(folder: Path, name: str, hyperparameters: dict[str, Any]) -> None:
    """Fill the card's template from the files that the stages left."""
    facts = {key: json.loads(path.read_text()) for key, path in SOURCES.items()}
    metrics = json.loads((METRICS / "metrics.json").read_text())
    config = json.loads((FINETUNED / "config.json").read_text())
    card = ModelCard.from_template(
        card_data(name.split("/")[-1], facts["data"], facts["base"], metrics),
        template_path=str(TEMPLATE),
        name=name.split("/")[-1],
        repo=name if "/" in name else f"your-name/{name}",
        metrics=metrics,
        split=json.loads((METRICS / "split.json").read_text()),
        hyperparameters=hyperparameters,
        epochs=read_epochs(METRICS / "train").reset_index().to_dict("records"),
        architecture=config["architectures"][0],
        labels=list(config["id2label"].values()),
        sampling_rate=json.loads((FINETUNED / "preprocessor_config.json").read_text())["sampling_rate"],
        versions={package: version(package).split("+")[0] for package in ("transformers", "torch", "datasets")},
        **facts,
    )
    (folder / "README.md").write_text(str(card).rstrip() + "\n", encoding="utf-8")


def check_push(params: Params, accuracy: float) -> None:
    """Raises StageError, before any work, where a push could not or should not end well."""
    least = params.min_accuracy
    if least is not None and accuracy < least:
        raise StageError(f"params.yaml: publish.min_accuracy: {least} is more than the {accuracy} of the test clips")
    hub.whoami()


def git_commit() -> str:
    """The checkout's commit, 7 digits, with a + where files differ from it."""
    git = partial(subprocess.run, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "--short=7", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def push(params: Params, accuracy: float) -> str:
    commit = git_commit()
    message = f"Publish git commit {commit}, test accuracy {accuracy:.3f}"
    return hub.push(PUBLISHED, params.name, params.private, message, tag=f"git-{commit.rstrip('+')}")


def main() -> None:
    params = load_params("publish", Params)
    hyperparameters = load_params("train", dict[str, Any])
    for key in ("resample_encode.representation", "resample_encode.precision"):
        hyperparameters[key] = load_params(key, str)
    need(FINETUNED / "config.json", METRICS / "metrics.json", METRICS / "split.json", *SOURCES.values())
    accuracy = json.loads((METRICS / "metrics.json").read_text())["accuracy"]
    if params.push:
        check_push(params, accuracy)
    with whole(PUBLISHED) as folder:
        shutil.copytree(FINETUNED, folder)
        for name in ("metrics.json", "predictions.csv", "result.png"):
            shutil.copyfile(METRICS / name, folder / name)
        write_card(folder, params.name, hyperparameters)
    print(f"{PUBLISHED}: {params.name}")
    if params.push:
        print(push(params, accuracy))


if __name__ == "__main__":
    run(main)
