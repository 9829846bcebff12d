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
from pydantic import Field

from stages.common import hub
from stages.common.hub_id import HubId
from stages.common.pictures import read_epochs
from stages.common.stage import Number, Section, StageError, load_params, need, run, whole

FINETUNED = Path("models/finetuned")
METRICS = Path("metrics")
SOURCES = {"data": Path("data/raw/source.json"), "base": Path("models/base/source.json")}
PUBLISHED = Path("models/published")
TEMPLATE = Path(__file__).with_name("common") / "model_card.md"


class Params(Section):
    name: HubId  # of the repo on the Hub, with an owner or, to push into the token's own account, without
    push: bool
    private: bool = True  # of a repo that does not exist yet
    min_accuracy: Number | None = Field(None, ge=0, le=1)  # nothing less is pushed


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
            dataset_split=data.get("split"),
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


def write_card(folder: Path, repo: str, hyperparameters: dict[str, Any]) -> None:
    """Fill the card's template from the stages' output files. `repo` is owner/name."""
    name = repo.split("/")[-1]
    facts = {key: json.loads(path.read_text()) for key, path in SOURCES.items()}
    metrics = json.loads((METRICS / "metrics.json").read_text())
    config = json.loads((FINETUNED / "config.json").read_text())
    card = ModelCard.from_template(
        card_data(name, facts["data"], facts["base"], metrics),
        template_path=str(TEMPLATE),
        name=name,
        repo=repo,
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


def check_accuracy(params: Params, accuracy: float) -> None:
    """Raises StageError, before any work, if the accuracy is too low to push."""
    if params.min_accuracy is not None and accuracy < params.min_accuracy:
        raise StageError(
            f"params.yaml: publish.min_accuracy: {params.min_accuracy} is more than the test accuracy {accuracy}; "
            "lower it, or set publish.push: false"
        )


def git_commit() -> str:
    """The checkout's commit, 7 digits, with a + where files differ from it."""
    git = partial(subprocess.run, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "--short=7", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def push(repo: str, private: bool, accuracy: float) -> str:
    commit = git_commit()
    message = f"Publish git commit {commit}, test accuracy {accuracy:.3f}"
    return hub.push(PUBLISHED, repo, private, message, tag=f"git-{commit.rstrip('+')}")


def main() -> None:
    params = load_params("publish", Params)
    hyperparameters = load_params("train", dict[str, Any])
    for key in ("resample_encode.representation", "resample_encode.precision"):
        hyperparameters[key] = load_params(key, str)
    need(FINETUNED / "config.json", METRICS / "metrics.json", METRICS / "split.json", *SOURCES.values())
    accuracy = json.loads((METRICS / "metrics.json").read_text())["accuracy"]
    owner = "your-name"
    if params.push:
        check_accuracy(params, accuracy)
        owner = hub.whoami(params.name)
    repo = params.name if "/" in params.name else f"{owner}/{params.name}"
    with whole(PUBLISHED) as folder:
        shutil.copytree(FINETUNED, folder)
        for name in ("metrics.json", "predictions.csv", "result.png"):
            shutil.copyfile(METRICS / name, folder / name)
        write_card(folder, repo, hyperparameters)
    print(f"{PUBLISHED}: {params.name}")
    if params.push:
        print(push(repo, params.private, accuracy))


if __name__ == "__main__":
    run(main, {"publish": Params})
