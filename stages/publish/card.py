"""Write the model card."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.common.names import show, show_with_spaces
from stages.common.paths import BASE_SOURCE, DATASET_SOURCE, EPOCHS, FINETUNED, METRICS, SPLIT_COUNTS, TRAINING
from stages.common.tables import read_epochs, read_json, select_scores

TEMPLATE = "model_card.md"  # beside this file
PACKAGES = ("transformers", "torch", "datasets")
# What Markdown, HTML or a formula would read as markup: everywhere, at the edge of a word, or at the start.
MARKUP = re.compile(r"[\\`*\[\]<>|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|(?<=^\d)[.)]|(?<=^\d\d)[.)]|^\s|\s$")


def escape_markdown(text: str) -> str:
    """Return Markdown that shows a text as it is, in a line or a cell of a table.

    Character references never count as markup, in no dialect; backslashes do in the formulas of the Hub.
    """
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", show_with_spaces(text))


def as_code(text: str) -> str:
    """Return Markdown that shows a text as code, also if it contains backticks."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{show(text)}{space}{fence}"


def card_data(name: str, data: dict[str, Any], base: dict[str, Any], metrics: dict[str, Any]) -> ModelCardData:
    """Return the card's metadata, which the Hub's search, leaderboards and widgets read.

    Args:
        data, base: the source.json of the data set and of the base model. metrics: the content of metrics.json.
    """
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


def write_card(file: Path, repo: str) -> None:
    """Fill the card's template from the outputs of the stages. repo: owner/name."""
    name = repo.split("/")[-1]
    data, base, metrics = read_json(DATASET_SOURCE), read_json(BASE_SOURCE), read_json(METRICS)
    config, training = read_json(FINETUNED / "config.json"), read_json(TRAINING)
    settings = {name: value for name, value in training["resample_encode"].items() if name != "background"}
    encoding = {f"resample_encode.{key}": value for key, value in settings.items()}
    max_seconds = training["resample_encode"]["max_seconds"]
    sampling_rate = read_json(FINETUNED / "preprocessor_config.json")["sampling_rate"]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent))
    environment.filters |= {"text": escape_markdown, "code": as_code}
    content = environment.get_template(TEMPLATE).render(
        card_data=card_data(name, data, base, metrics).to_yaml(),
        name=name,
        repo=repo,
        data=data,
        base=base,
        metrics=metrics,
        numbers=select_scores(metrics),
        split=read_json(SPLIT_COUNTS),
        hyperparameters=training["train"] | encoding,
        epochs=read_epochs(EPOCHS).reset_index().to_dict("records"),
        best_epoch=training["best_epoch"],
        averaged_epochs=training.get("averaged_epochs"),
        select_by=training["train"].get("select_by", "accuracy").replace("_", " "),
        architecture=config["architectures"][0],
        labels=list(config["id2label"].values()),
        sampling_rate=sampling_rate,
        max_seconds=max_seconds,
        segments=training["resample_encode"].get("segments", False),
        max_samples=round(max_seconds * sampling_rate),
        versions={package: version(package).split("+")[0] for package in PACKAGES},
    )
    file.write_text(str(ModelCard(content)).rstrip() + "\n", encoding="utf-8")
