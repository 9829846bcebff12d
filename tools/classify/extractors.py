"""Load a feature extractor, also AST's if torch is not installed."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from transformers.audio_utils import spectrogram

from stages.common import configs
from stages.common.errors import UserError
from stages.common.tables import read_json

AST = "transformers.models.audio_spectrogram_transformer"


def load_extractor(folder: Path) -> Any:
    """Load the feature extractor of a model.

    Raises:
        UserError: preprocessor_config.json is missing or damaged, or the feature extractor needs torch.
    """
    try:
        return configs.load_extractor(folder)
    except ImportError:
        name = read_json(folder / "preprocessor_config.json").get("feature_extractor_type")
    if name != "ASTFeatureExtractor":
        raise UserError(f"{name} of transformers needs torch; pip install torch", file=folder)
    return _load_ast(folder)


def _load_ast(folder: Path) -> Any:
    """Load AST's feature extractor without torch, which Transformers' class uses only to pad."""
    # Without torch, `from ... import` finds only a stand-in.
    module: Any = import_module(f"{AST}.feature_extraction_audio_spectrogram_transformer")

    class Extractor(module.ASTFeatureExtractor):
        def _extract_fbank_features(self, waveform: np.ndarray, max_length: int) -> np.ndarray:
            """Return log mel energies, padded or cut: float32, (max_length, bins)."""
            options: dict[str, Any] = {"frame_length": 400, "hop_length": 160, "fft_length": 512, "power": 2.0}
            options |= {"center": False, "preemphasis": 0.97, "log_mel": "log", "mel_floor": 1.192092955078125e-07}
            found = spectrogram(
                np.squeeze(waveform), self.window, mel_filters=self.mel_filters, remove_dc_offset=True, **options
            ).T[:max_length]
            return np.pad(found, ((0, max_length - len(found)), (0, 0)))

    return Extractor.from_pretrained(folder)
