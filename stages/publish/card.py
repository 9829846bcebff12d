"""Write the model card."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.common.paths import BASE_SOURCE, DATASET_SOURCE, EPOCHS, FINETUNED, METRICS, SPLIT_COUNTS, TRAINING
from stages.common.tables import read_epochs, read_json, select_scores

TEMPLATE = Path(__file__).with_name("model_card.md")
PACKAGES = ("transformers", "torch", "datasets")


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
    encoding = {f"resample_encode.{key}": value for key, value in training["resample_encode"].items()}
    max_seconds = training["resample_encode"]["max_seconds"]
    sampling_rate = read_json(FINETUNED / "preprocessor_config.json")["sampling_rate"]
    card = ModelCard.from_template(
        card_data(name, data, base, metrics),
        template_path=str(TEMPLATE),
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
        architecture=config["architectures"][0],
        labels=list(config["id2label"].values()),
        sampling_rate=sampling_rate,
        max_seconds=max_seconds,
        max_samples=round(max_seconds * sampling_rate),
        versions={package: version(package).split("+")[0] for package in PACKAGES},
    )
    file.write_text(str(card).rstrip() + "\n", encoding="utf-8")
