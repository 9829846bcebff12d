"""Find a model: a folder, an ONNX file, or an id on the Hub."""

from pathlib import Path

from stages.common.errors import UserError
from stages.common.hub_id import read_id
from stages.common.paths import TRAINING
from stages.download.model.checkpoint_sources import CONFIGS, OLD_WEIGHTS, WEIGHTS
from stages.publish.onnx_session import MODEL_FILE

ONNX = ".onnx"


def find_model(model: str) -> Path:
    """Return the folder of a PyTorch model, or an ONNX file; download a model from the Hub into its cache.

    Args:
        model: folder, ONNX file, or id on the Hub. A folder with both kinds of models is the PyTorch model.

    Raises:
        UserError: nothing is there.
    """
    path = Path(model).expanduser()
    if path.exists() or path.suffix == ONNX or model.startswith((".", "/", "~", "models/")):
        if not (find_configs(path) / "config.json").is_file():
            raise UserError("no config.json; run dvc repro, or choose a folder of save_pretrained", file=path)
        has_weights = any(next(path.glob(pattern), None) for pattern in [*WEIGHTS, *OLD_WEIGHTS])
        return path / MODEL_FILE if not has_weights and (path / MODEL_FILE).is_file() else path
    from stages.common import hub

    try:
        name = read_id(model)
    except ValueError as error:
        raise UserError(f"--model: neither a folder nor an id on the Hub: {error}") from None
    snapshot, commit = hub.fetch_files("model", name, "main", [*CONFIGS, TRAINING.name, *WEIGHTS])
    if not list(snapshot.glob(WEIGHTS[0])):
        snapshot, _ = hub.fetch_files("model", name, commit, [*CONFIGS, *OLD_WEIGHTS])
    return snapshot


def find_configs(model: Path) -> Path:
    """Return the folder of config.json. model: folder, or ONNX file, whose config.json is beside it or one level up."""
    if model.suffix != ONNX:
        return model
    return model.parent if (model.parent / "config.json").is_file() else model.parent.parent
