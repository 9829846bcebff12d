from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone, user_error
from transformers import Wav2Vec2FeatureExtractor

from stages.resample_encode.features import encode_clip, load_feature_extractor

EXTRACTOR = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=False, return_attention_mask=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """One second."""
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    return file


def test_max_seconds_cuts_the_clip(clip: Path) -> None:
    array = encode_clip(clip, EXTRACTOR, max_seconds=0.25)
    assert array.dtype == np.float16
    assert array.shape == (4_000,)


def test_run_part_gets_extractor_output(clip: Path) -> None:
    array = encode_clip(clip, EXTRACTOR, 30, run_part=lambda features: -features.reshape(-1, 4))
    assert array.shape == (4_000, 4)
    np.testing.assert_array_equal(array.ravel(), -encode_clip(clip, EXTRACTOR, 30))


def test_shortest_accepted_clip(clip: Path) -> None:
    assert len(encode_clip(clip, EXTRACTOR, 30, min_samples=16_000)) == 16_000
    error = user_error(lambda: encode_clip(clip, EXTRACTOR, 30, min_samples=16_001))
    assert error.file == str(clip)
    assert "16001" in str(error)


def test_states_too_large_for_float16(clip: Path) -> None:
    error = user_error(lambda: encode_clip(clip, EXTRACTOR, 30, run_part=lambda features: features * 1e6))
    assert error.file == str(clip)
    assert "resample_encode.cache: input" in str(error)


def test_settings_replaced(tmp_path: Path) -> None:
    EXTRACTOR.save_pretrained(tmp_path)
    assert load_feature_extractor(tmp_path, {"do_normalize": True}).do_normalize
    assert not load_feature_extractor(tmp_path, {}).do_normalize


def test_unknown_setting_refused(tmp_path: Path) -> None:
    EXTRACTOR.save_pretrained(tmp_path)
    error = user_error(lambda: load_feature_extractor(tmp_path, {"do_normalise": True}))
    assert error.key == "resample_encode.feature_extractor.do_normalise"
