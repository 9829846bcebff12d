"""Run an ONNX file with ONNX Runtime, on the CPU. This needs no torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.common.errors import UserError

MODEL_FILE = Path("onnx/model.onnx")  # in a repository of the Hub, where transformers.js looks for it


def open_session(file: Path, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that runs a model with one input: float of any precision -> logits, float64 (batch, labels).

    The function raises MemoryError if a batch does not fit into memory.

    Args:
        threads: CPU threads; None: all.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot open the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX Runtime is not installed; pip install onnxruntime", file=file) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised; do not also print them
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each of its status codes, and no common one
        reason = " ".join(str(error).split())
        fix = "write it again: python -m tools.export"
        raise UserError(f"ONNX Runtime cannot open it: {reason}; {fix}", file=file) from None
    name = session.get_inputs()[0].name

    def run(inputs: np.ndarray) -> np.ndarray:
        try:
            [logits] = session.run(["logits"], {name: inputs.astype(np.float32)})
        except Exception as error:
            if "alloc" not in str(error):  # bad_alloc, or: Failed to allocate memory
                raise
            raise MemoryError from None
        return np.asarray(logits, np.float64)

    return run
