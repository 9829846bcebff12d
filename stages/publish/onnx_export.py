"""Export a model to ONNX, where transformers.js looks for it, and compare the file with PyTorch.

torch's exporter writes it, with a dynamic number of clips and, if the model takes clips of any length, of samples.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import stages.common.device  # noqa: F401  # before anything else imports torch

# isort: split
import torch
from transformers import PreTrainedModel

from stages.common.classifier import load_classifier
from stages.common.configs import load_config, load_extractor
from stages.common.errors import UserError
from stages.publish.onnx_session import open_session

# Of the range of PyTorch's logits, from the lowest to the highest. An absolute limit is too low for a model that
# amplifies rounding, and too high for one that has learned little, whose logits are all close to 0. Measured: rounding
# up to 0.00012 with an earlier demo, with other instructions of the CPU too; int8 from 0.007.
TOLERANCE = 2e-3
MIN_RANGE = 1e-4  # if all logits are equal, rounding is more than their range
MAX_BYTES = 2**31 - 1  # of a file in ONNX's format


def export_model(folder: Path, file: Path, clips: Sequence[np.ndarray]) -> float:
    """Write a model as one ONNX file, without paths of this machine: the same model gives the same bytes.

    Args:
        folder: with the model, as `save_pretrained` writes it.
        clips: to compare the file with PyTorch: float32 (samples,) at the sampling rate of the feature extractor.

    Returns:
        The largest difference of a logit, as `compare` returns it.

    Raises:
        UserError: the model is too large or cannot be exported, or the file gives other logits.
    """
    config, extractor = load_config(folder), load_extractor(folder)
    model = load_classifier(folder, config, new_head=False).eval()
    if sum(tensor.numel() * 4 for tensor in model.parameters()) > MAX_BYTES:
        raise UserError("larger than 2 GB, which a single ONNX file cannot hold", file=folder)
    fold_weight_norm(model)
    name = extractor.model_input_names[0]

    def extract(samples: np.ndarray) -> np.ndarray:
        array: np.ndarray = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")[name]
        return array.astype(np.float32)

    inputs = [extract(clip) for clip in clips]
    # Dimensions that depend on the length of the clip are dynamic.
    one, two = (extract(make_clips(extractor.sampling_rate, [seconds])[0]).shape for seconds in (1.0, 2.0))
    dynamic = {0: "batch"} | {n: f"length_{n}" for n in range(1, len(one)) if one[n] != two[n]}
    file.write_bytes(_export(model, name, np.zeros((2, *one[1:]), np.float32), dynamic))
    return compare(model, open_session(file), inputs, folder)


def fold_weight_norm(model: torch.nn.Module) -> None:
    """Replace parametrised weights, such as the weight norm of HuBERT's positional convolution, by their values."""
    for module in model.modules():
        for name in list(getattr(module, "parametrizations", [])):
            torch.nn.utils.parametrize.remove_parametrizations(module, name)


def make_clips(sampling_rate: int, lengths: Sequence[float]) -> list[np.ndarray]:
    """Return clips of noise and a tone, float32 (samples,). lengths: seconds."""
    random = np.random.default_rng(0)
    clips = []
    for number, seconds in enumerate(lengths):
        times = np.arange(round(seconds * sampling_rate)) / sampling_rate
        tone = 0.3 * np.sin(2 * np.pi * 200 * 1.5**number * times)
        clips.append((tone + random.uniform(-0.1, 0.1, len(times))).astype(np.float32))
    return clips


def compare(
    model: PreTrainedModel, run: Callable[[np.ndarray], np.ndarray], inputs: Sequence[np.ndarray], folder: Path
) -> float:
    """Return the largest difference of a logit, as a share of their range, over clips and a batch of two.

    Args:
        folder: of the model, for errors.
        run: as `open_session` returns it.
        inputs: of each clip, float32 (1, ...).

    Raises:
        UserError: it is larger than TOLERANCE.
    """
    batches = [*inputs, *(np.concatenate([array, array[:, ::-1]]) for array in inputs[:1])]
    with torch.inference_mode():
        expected = np.concatenate([model(torch.from_numpy(batch)).logits.double().numpy() for batch in batches])
    found = np.concatenate([run(batch) for batch in batches])
    difference = float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())
    spread = max(float(np.ptp(expected)), MIN_RANGE)
    if not difference <= TOLERANCE * spread:
        message = (
            f"as ONNX, its logits differ by {difference:.2g}, more than {TOLERANCE:g} of their range, {spread:.2g}"
        )
        raise UserError(message, file=folder)
    return difference / spread


def _export(model: PreTrainedModel, name: str, example: np.ndarray, dynamic: dict[int, str]) -> bytes:
    """Return the content of the file. name: of the model's input. example: float32 (2, ...)."""
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (),
                kwargs={name: torch.from_numpy(example)},
                input_names=[name],
                output_names=["logits"],
                dynamic_shapes={name: dynamic},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"torch cannot export a {model.config.model_type} model to ONNX: {reason}") from error
    assert program is not None
    content = program.model_proto
    for node in [*content.graph.node, *(node for function in content.functions for node in function.node)]:
        del node.metadata_props[:]  # where the code of the node is on this machine
        node.doc_string = ""
    result: bytes = content.SerializeToString(deterministic=True)
    return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's progress and its warnings, which users cannot act on."""
    before: Any = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
