"""Fine-tune the base model and keep its best epoch.

Reads   params.yaml: train; models/base/; data/encoded/; data/splits.csv (validation selects the best epoch, or test if
        there are no validation clips; clips of the background are not used for it)
Writes  models/finetuned/: a checkpoint for `pipeline("audio-classification")`, and training.json with the params it was
        trained with
        metrics/train/: DVCLive, one row per epoch
        metrics/selection.json: the best epoch and its accuracy on the split that selected it
        metrics/selection.csv: clip, label, prediction of the clips that selected it
        metrics/runs/: TensorBoard logs
        .dvc/tmp/checkpoints/: checkpoints to go on from, if the stage is killed; removed at its end
Run     python -m stages.train; to watch, tensorboard --logdir metrics
"""

from stages.common import interrupts  # first, so that Ctrl-C is handled while the rest is imported

# isort: split
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stages.common.environment import use_first_gpu
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import (
    BASE,
    BASE_SOURCE,
    ENCODED,
    EPOCHS,
    FINETUNED,
    RUNS,
    SELECTION,
    SELECTION_CLIPS,
    SPLITS,
    TRAINING,
)
from stages.common.stage import run_stage
from stages.train.params import WITHOUT_EFFECT, TrainParams

FINE_TUNING = 1e-4  # learning rates up to this are for pretrained weights
OUTPUTS = (FINETUNED, EPOCHS, RUNS, SELECTION, SELECTION_CLIPS)
SMALLER = "set train.window_seconds, or lower it or resample_encode.max_seconds"  # if memory runs out


def warn_of_low_learning_rate(base: dict[str, Any], learning_rate: float) -> None:
    """Warn if a model with random weights would hardly learn. base: the content of models/base/source.json."""
    if (base.get("source") == "random_weights" or base.get("random_weights")) and learning_rate <= FINE_TUNING:
        print(
            f"warning: the base model has random weights, which learn next to nothing at train.learning_rate: "
            f"{learning_rate:g}; set about 3e-3, as presets/demo.yaml does, or choose a pretrained base model",
            flush=True,
        )


def describe_training(params: TrainParams, selected_on: str, best: dict[str, Any]) -> dict[str, Any]:
    """Return the content of training.json, but for the params of other stages.

    Args:
        selected_on: the split that selected the best epoch. best: what was measured after it.
    """
    used = params.model_dump(exclude=WITHOUT_EFFECT)
    content = {"selected_on": selected_on, "best_epoch": round(best["epoch"]), "train": used}
    if averaged := best.get("averaged_epochs"):
        content |= {"averaged_epochs": averaged, "selection_accuracy": best["eval_accuracy"]}
    return content | {key: best[key] for key in ["layer_weights"] if key in best}


def describe_selection(selected_on: str, best: dict[str, Any]) -> dict[str, Any]:
    """Return the content of selection.json. Arguments: as for `describe_training`."""
    accuracy = round(best["eval_accuracy"], 6)
    return {"selected_on": selected_on, "best_epoch": round(best["epoch"]), "best_epoch_accuracy": accuracy}


def summarize(params: TrainParams, selected_on: str, best: dict[str, Any]) -> str:
    """Return the best epoch, its scores and layer_weights as text. Arguments: as for `describe_training`."""
    averaged = best.get("averaged_epochs")
    which = f"mean of epochs {averaged[0]} to {averaged[-1]}" if averaged else f"best epoch {round(best['epoch'])}"
    scores = {metric.replace("_", " "): best[f"eval_{metric}"] for metric in ("accuracy", params.select_by)}
    listed = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    if params.average_epochs and not averaged:
        listed += f"; the mean of the last {params.average_epochs} epochs is not better"
    shares = ", ".join(f"{layer}: {weight:.3f}" for layer, weight in enumerate(best.get("layer_weights", [])))
    weights = f"\nweights of the layers (0 is the input of the first): {shares}" if shares else ""
    return f"{which}, {selected_on} {listed}{weights}"


def main() -> None:
    """Train, with smaller batches if memory runs out, and save the model."""
    from stages.common.device import make_deterministic, with_smaller_batches  # before torch

    # isort: split
    from stages.common.encoded_clips import open_encoded_clips
    from stages.common.kept_work import open_run
    from stages.common.tables import read_json, read_table, write_json, write_table
    from stages.train import checkpoints, ranks, training

    params = load_params("train", TrainParams)
    require_files(BASE / "config.json", ENCODED, SPLITS)
    encoded, splits = open_encoded_clips(ENCODED), read_table(SPLITS)
    for conflict in params.find_cache_conflicts(encoded.cached_part):
        raise conflict
    launcher = ranks.choose_launcher(params.processes, params.threads)
    make_deterministic(params.seed, params.threads)
    warn_of_low_learning_rate(read_json(BASE_SOURCE) if BASE_SOURCE.is_file() else {}, params.learning_rate)

    def train(micro_batch: int) -> dict[str, Any]:
        if micro_batch < params.batch_size:
            steps = params.gradient_accumulation_steps * params.batch_size // micro_batch
            print(f"gradient accumulation steps: {steps}", flush=True)
        precision = training.choose_precision(params.precision)
        run = checkpoints.describe_run(micro_batch, launcher.processes, launcher.device, precision, bool(params.lora))
        opened.append(in_use.enter_context(open_run(checkpoints.CHECKPOINTS, run)))
        folders = training.Folders(folder, metrics, runs, opened[-1])
        folders.clear()
        best = launcher.run(training.train_model, (params, micro_batch, folders))
        if number := interrupts.find_request():  # it came after the last step
            interrupts.end(number, ranks.GO_ON)
        return best

    opened: list[Path] = []
    with ExitStack() as in_use:  # until the checkpoints are removed, no other run goes on from them
        with atomic_outputs(*OUTPUTS) as [folder, metrics, runs, selection, clips]:
            best = with_smaller_batches(train, params.batch_size, "train.batch_size", SMALLER, divide=True)
            encoded.extractor.save_pretrained(folder)
            selected_on = training.selection_split(encoded.drop_background(splits))
            content = describe_training(params, selected_on, best) | {"resample_encode": encoded.settings}
            write_json(folder / TRAINING.name, content)
            write_json(selection, describe_selection(selected_on, best))
            write_table(clips, best["predictions"])
        checkpoints.remove(opened)
    print(f"{FINETUNED}: {summarize(params, selected_on, best)}")


if __name__ == "__main__":
    use_first_gpu()
    run_stage(main)
