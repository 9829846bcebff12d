"""Measure the fine-tuned model on the test split.

Reads   params.yaml: evaluate; models/finetuned/; data/encoded/; data/splits.csv; data/raw/; metrics/baselines.json,
        split.json and train/
Writes  metrics/metrics.json: accuracy with its 95% interval, macro-F1, log loss, calibration, per label, and more;
                              temperature and threshold, set on the validation clips
        metrics/predictions.csv: clip, label, prediction, and a probability per label
        metrics/result.png: learning curves, confusion matrix and reliability diagram
        metrics/report.html: a report with figures, and with the most confident errors to play
Run     python -m stages.evaluate
"""

from typing import TYPE_CHECKING, Any

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.errors import damaged
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import (
    BASELINES,
    CLIPS,
    DATASET_SOURCE,
    ENCODED,
    EPOCHS,
    FIGURE,
    FINETUNED,
    METRICS,
    PREDICTIONS,
    RAW,
    REPORT,
    SPLIT_COUNTS,
    SPLITS,
    TRAINING,
)
from stages.common.stage import run_stage
from stages.evaluate.params import EvaluateParams

if TYPE_CHECKING:
    from pandas import DataFrame


def selection_accuracy(epochs: "DataFrame", training: dict[str, Any]) -> float:
    """Return the accuracy of the model on the clips that selected its epoch, or the mean of several.

    Args:
        epochs: as `read_epochs` returns them. training: the content of training.json.

    Raises:
        UserError: there is no such epoch.
    """
    best_epoch = training["best_epoch"]
    if best_epoch not in epochs.index:
        raise damaged(TRAINING, f"its best epoch {best_epoch} is not in {EPOCHS}")
    return float(training.get("selection_accuracy", epochs["eval_accuracy"][best_epoch]))


def describe_selection(training: dict[str, Any], epochs: "DataFrame") -> dict[str, Any]:
    """Return the fields of Result that say how the model was selected. Arguments: as for `selection_accuracy`."""
    select_by, averaged = training["train"].get("select_by", "accuracy"), training.get("averaged_epochs")
    if f"eval_{select_by}" not in epochs:
        raise damaged(EPOCHS, f"it has no {select_by}, which selected the best epoch")
    return {"select_by": select_by, "averaged_epochs": (averaged[0], averaged[-1]) if averaged else None}


def summarize(metrics: dict[str, Any]) -> str:
    """Return the accuracy, with its interval and the number of clips, in one line."""
    return (
        f"accuracy {metrics['accuracy']:.3f} ({metrics['accuracy_low']:.2f} to {metrics['accuracy_high']:.2f}) "
        f"on {metrics['n_clips']} test clips"
        + (f" of {metrics['n_groups']} groups" if metrics["interval_of"] == "groups" else "")
    )


def summarize_answers(answer: dict[str, Any]) -> str:
    """Return how many clips get a label, and on how many clips this was set, in one line. answer: of metrics.json."""
    numbers = answer["validation_clips"], answer["validation_background_clips"]
    threshold = "none" if answer["threshold"] is None else f"{answer['threshold']:.3f}"
    how = f"temperature {answer['temperature']:.3f}, threshold {threshold}, set on {numbers[0]} validation clips"
    how += f" and {numbers[1]} of the background" if answer["background"] else ""
    if not any(numbers):
        how = "no temperature and no threshold, because there are no validation clips (split.validation_size)"
    line = f"{how}; {answer['coverage']:.1%} of the test clips get a label"
    line += "" if answer["accuracy"] is None else f", {answer['accuracy']:.1%} of these are correct"
    if number := answer["background_clips"]:
        line += f"; {answer['let_through']:.1%} of {number} clips of the background get one"
    return line


def main() -> None:
    """Classify the test clips, measure, and draw."""
    from stages.common.device import make_deterministic  # before anything else imports torch

    # isort: split
    from transformers.utils import logging

    from stages.common.encoded_clips import open_encoded_clips
    from stages.common.tables import read_epochs, read_json, read_table, require_same_labels, write_json, write_table
    from stages.evaluate.calibration import measure_answers, set_answering
    from stages.evaluate.figures import Result, save_result
    from stages.evaluate.metrics import measure, round_floats
    from stages.evaluate.prediction import predict_splits, select_predictions
    from stages.evaluate.report import write_report

    params = load_params("evaluate", EvaluateParams)
    require_files(
        FINETUNED / "config.json", TRAINING, ENCODED, SPLITS, CLIPS, DATASET_SOURCE, EPOCHS, SPLIT_COUNTS, BASELINES
    )
    make_deterministic(0, params.threads)
    logging.set_verbosity_error()
    splits, epochs, training = read_table(SPLITS), read_epochs(EPOCHS), read_json(TRAINING)
    require_same_labels(read_table(CLIPS), splits)
    encoded = open_encoded_clips(ENCODED)
    logits = predict_splits(encoded, splits, params)
    answering, numbers = set_answering(logits.get("validation"), encoded.labels, encoded.background, params)
    answer = measure_answers(logits["test"], encoded.labels, answering) | numbers
    predictions = select_predictions(logits["test"], encoded, answering.temperature, params.window_seconds is not None)
    groups = splits.set_index("clip").loc[predictions.clips, "group"].to_numpy()
    selected = selection_accuracy(epochs, training)
    measured = measure(predictions, groups, read_json(BASELINES), training["selected_on"], selected, encoded.background)
    metrics = round_floats(measured | {"answer": answer})
    table, summary = predictions.to_table(), summarize(metrics)
    result = Result(epochs, training["best_epoch"], table, metrics["reliability"], metrics["answer"])
    result = result._replace(**describe_selection(training, epochs))
    with atomic_outputs(METRICS, PREDICTIONS, FIGURE, REPORT) as [metrics_file, predictions_file, figure, report]:
        write_json(metrics_file, metrics)
        write_table(predictions_file, table)
        save_result(figure, result, summary)
        write_report(report, metrics, read_json(SPLIT_COUNTS), result, RAW)
    print(f"{METRICS}: {summary}")
    print(summarize_answers(metrics["answer"]))
    print("baselines: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics["baselines"].items()))


if __name__ == "__main__":
    run_stage(main)
