"""Run an ONNX file of tools.export with ONNX Runtime, on the CPU."""

from pathlib import Path

from stages.common.errors import UserError
from stages.publish.onnx_session import open_session
from tools.classify.model import Run


def load_onnx(file: Path, precision: str, threads: int | None) -> Run:
    """Load a model, as `load_model` describes it."""
    if precision == "bf16":
        raise UserError("an ONNX file has its own precision; leave out --precision", file=file)
    return open_session(file, threads)
