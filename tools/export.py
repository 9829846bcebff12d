"""Export a model to ONNX, for ONNX Runtime and for transformers.js in browsers and Node.js.

The folder is laid out as a repository of the Hub: onnx/model.onnx beside config.json and preprocessor_config.json. The
file is compared with PyTorch on clips of the test split; without data/raw, on generated ones.

Run     python -m tools.export
        python -m tools.export --int8     # also onnx/model_quantized.onnx, and what it costs on the test split
        python -m tools.classify recordings/ --model models/onnx
"""

import dataclasses
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.paths import BASE, CLIPS, DATASET_SOURCE, FINETUNED, PUBLISHED, RAW, SPLITS, TRAINING
from stages.common.stage import command_parser, run_command
from stages.common.tables import read_json, read_table
from stages.download.model.checkpoint_sources import CONFIGS
from stages.publish.onnx_session import MODEL_FILE
from stages.publish.params import find_missing_packages
from tools.classify.find import ONNX, find_model
from tools.classify.output import replace

OUT = Path("models/onnx")
QUANTISED = Path("onnx/model_quantized.onnx")  # transformers.js loads it with dtype "q8", its default in browsers
CHECKED_CLIPS = 16
BATCH_SIZE = 8


class Clip(NamedTuple):
    """A clip of the test split."""

    file: Path
    label: str


def list_test_clips() -> list[Clip]:
    """List the clips of the test split, without the background; none if the project has no data/raw or no split."""
    if not CLIPS.is_file() or not SPLITS.is_file():
        return []
    paths = read_table(CLIPS).set_index("clip")["path"]
    splits = read_table(SPLITS)
    background = read_json(DATASET_SOURCE).get("background") if DATASET_SOURCE.is_file() else None
    test = splits[(splits["split"] == "test") & (splits["label"] != background)]
    return [Clip(RAW / paths[name], label) for name, label in zip(test["clip"], test["label"])]


def read_samples(clips: list[Clip], folder: Path) -> tuple[list[np.ndarray], str]:
    """Return the samples of a few clips, float32 (samples,), or of generated ones, and what they are."""
    from stages.common.audio import load_audio
    from stages.common.configs import load_extractor
    from stages.publish.onnx_export import make_clips
    from tools.classify.model import read_max_seconds

    rate, max_seconds = load_extractor(folder).sampling_rate, read_max_seconds(folder)
    if not clips:
        return make_clips(rate, [1.0, min(5.0, max_seconds), max_seconds]), "generated clips"
    chosen = clips[:: -(-len(clips) // CHECKED_CLIPS)]
    return [load_audio(clip.file, rate, max_seconds) for clip in chosen], f"{len(chosen)} test clips"


def quantise(source: Path, target: Path) -> None:
    """Write a model with weights in int8, to which it also rounds the input of each layer (dynamic quantisation).

    Unsigned, because ONNX Runtime has no fast convolution with signed weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from stages.publish.onnx_export import quiet

    with quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)


def classify_clips(models: dict[str, Path], clips: list[Clip], threads: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Classify complete clips with several models, batch by batch, as `evaluate` does it with one.

    Args:
        models: by name, as `find_model` returns them; the first one has the settings of the training.

    Returns:
        The predicted labels, str (models, clips), and the seconds that each model took, float (models,).

    Raises:
        UserError: a clip cannot be read.
    """
    from tools.classify.__main__ import plan_windows
    from tools.classify.batches import classify
    from tools.classify.model import load_model, read_training

    loaded = [load_model(model, "fp32", threads) for model in models.values()]
    has_segments = read_training(next(iter(models.values()))).get("segments", False)
    seconds, n_windows = np.zeros(len(loaded)), 0

    def run_all(inputs: np.ndarray) -> np.ndarray:
        """Return the logits of all models: float64 (windows, models, labels)."""
        if not seconds.any():  # the first run takes longer
            for classifier in loaded:
                classifier.run(inputs)
        nonlocal n_windows
        n_windows += len(inputs)
        logits, times = zip(*(_time_run(classifier.run, inputs) for classifier in loaded))
        seconds[:] += times
        return np.stack(logits, axis=1)

    together = dataclasses.replace(loaded[0], run=run_all)
    windows = plan_windows(together, None, None)
    files = [str(clip.file) for clip in clips]
    found: dict[str, np.ndarray] = {}
    with tqdm(total=len(clips), desc="classify", unit="clip", disable=None) as bar:
        for recording in classify(files, together, windows, BATCH_SIZE, lambda _: None):
            if recording.reason:
                raise UserError(recording.reason, file=recording.file)
            found[recording.file] = recording.mean if has_segments else recording.probabilities[0]
            bar.update()
    best = np.stack([found[file].argmax(axis=-1) for file in files], axis=1)
    if not has_segments:  # the other windows of a longer clip are classified, but not used
        seconds *= len(clips) / n_windows
    return np.array(together.labels)[best], seconds


def _time_run(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return run(inputs), time.perf_counter() - start


def report(models: dict[str, Path], clips: list[Clip], threads: int | None) -> None:
    """Print size, accuracy, agreement with the first model, and speed. models: as for `classify_clips`."""
    lines = [f"{'':12}{'MB':>8}{'accuracy':>10}{'same label':>12}{'clips/s':>9}"]
    predictions, seconds = classify_clips(models, clips, threads)
    actual = np.array([clip.label for clip in clips])
    for (name, model), predicted, taken in zip(models.items(), predictions, seconds):
        files = [model] if model.suffix == ONNX else model.glob("*.safetensors")
        size = sum(file.stat().st_size for file in files) / 1e6
        accuracy, same = np.mean(predicted == actual), np.mean(predicted == predictions[0])
        lines.append(f"{name:12}{size:8.1f}{accuracy:10.3f}{same:12.1%}{len(clips) / taken:9.1f}")
    print("\n".join([*lines, f"{len(clips)} test clips, complete, in batches of {BATCH_SIZE}"]))


def copy_configs(source: Path, out: Path) -> None:
    """Copy what describes a model, and remove what an earlier model left in `out`."""
    if out.samefile(source):
        return
    for name in (*CONFIGS, TRAINING.name):
        (out / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def export(options: Namespace) -> None:
    """Write the folder."""
    source, out = find_model(options.model), options.out
    if source.suffix == ONNX:
        raise UserError("is an ONNX file already; choose the folder of a PyTorch model", file=source)
    if out.resolve() in {folder.resolve() for folder in (BASE, FINETUNED, PUBLISHED)}:
        raise UserError("DVC writes this folder; choose another --out, or set publish.onnx: true", file=out)
    from transformers.utils import logging

    from stages.publish.onnx_export import export_model

    logging.disable_progress_bar()
    clips = list_test_clips()
    samples, kind = read_samples(clips, source)
    target, quantised = out / MODEL_FILE, out / QUANTISED
    target.parent.mkdir(parents=True, exist_ok=True)
    differences: list[float] = []
    replace(target, lambda partial: differences.append(export_model(source, partial, samples)))
    copy_configs(source, out)
    print(f"{target}: logits differ from PyTorch's by at most {differences[0]:.1g} of their range, on {kind}")
    models = {"PyTorch": source, "ONNX": target}
    if options.int8:
        replace(quantised, lambda partial: quantise(target, partial))
        models["ONNX, int8"] = quantised
    else:
        quantised.unlink(missing_ok=True)  # of an earlier model
    if options.int8 and clips:
        report(models, clips, options.threads)
    elif options.int8:
        print(f"{quantised}: without {CLIPS} and {SPLITS}, what it costs was not measured", file=sys.stderr)


def main() -> None:
    """Export a model."""
    parser = command_parser("tools.export", __doc__)
    add = parser.add_argument
    add("--model", default=str(PUBLISHED), help="folder, or id on the Hub; default: %(default)s")
    add("--out", type=Path, default=OUT, metavar="FOLDER", help="default: %(default)s")
    add("--int8", action="store_true", help="also write a model with weights in int8, and measure what it costs")
    add("--threads", type=int, metavar="N", help="CPU threads of the measurement; default: all")
    options = parser.parse_args()
    if options.threads is not None and options.threads < 1:
        parser.error("--threads must be at least 1")
    if missing := find_missing_packages():
        raise UserError(missing)
    export(options)


if __name__ == "__main__":
    run_command(main)
