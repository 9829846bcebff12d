"""Fine-tune the base model and keep its best epoch.

Reads   params.yaml: train; models/base/; data/encoded/; data/splits.csv (validation selects the best epoch, or test if
        there are no validation clips)
Writes  models/finetuned/: a checkpoint for `pipeline("audio-classification")`, and training.json with the params it was
        trained with
        metrics/train/: DVCLive, one row per epoch
        metrics/runs/: TensorBoard logs
Run     python -m stages.train; to watch, tensorboard --logdir metrics
"""

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import BASE, ENCODED, EPOCHS, FINETUNED, RUNS, SPLITS, TRAINING
from stages.common.stage import run_stage
from stages.train.params import TrainParams


def main() -> None:
    """Train, with smaller batches if memory runs out, and save the model."""
    from stages.common.device import make_deterministic, with_smaller_batches  # before anything else imports torch

    # isort: split
    from transformers.trainer_callback import TrainerState
    from transformers.utils import logging

    from stages.common.encoded_clips import open_encoded_clips
    from stages.common.tables import read_table, write_json
    from stages.train import trainer
    from stages.train.model import build_model

    params = load_params("train", TrainParams)
    require_files(BASE / "config.json", ENCODED, SPLITS)
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of writing each epoch's checkpoint
    encoded, splits = open_encoded_clips(ENCODED), read_table(SPLITS)
    for conflict in params.find_cache_conflicts(encoded.cached_part):
        raise conflict

    def train(micro_batch: int) -> TrainerState:
        make_deterministic(params.seed, params.threads)
        if micro_batch < params.batch_size:
            steps = params.gradient_accumulation_steps * params.batch_size // micro_batch
            print(f"gradient accumulation steps: {steps}", flush=True)
        model = build_model(BASE, encoded.labels, params)
        state = trainer.fit(model, params, micro_batch, encoded, splits, folder, metrics, runs)
        model.save_pretrained(folder)
        return state

    with atomic_outputs(FINETUNED, EPOCHS, RUNS) as [folder, metrics, runs]:
        fix = "set train.window_seconds, or lower it or resample_encode.max_seconds"
        state = with_smaller_batches(train, params.batch_size, "train.batch_size", fix, divide=True)
        encoded.extractor.save_pretrained(folder)
        selected_on, best = trainer.selection_split(splits), trainer.best_evaluation(state)
        epoch = round(best["epoch"])
        content = {"selected_on": selected_on, "best_epoch": epoch, "train": params.model_dump(exclude={"report_to"})}
        content |= {"resample_encode": encoded.settings}
        write_json(folder / TRAINING.name, content)
    print(f"{FINETUNED}: best epoch {epoch}, {selected_on} accuracy {best['eval_accuracy']:.3f}")


if __name__ == "__main__":
    run_stage(main)
