from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import tone, user_error
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from stages.resample_encode.features import encode_samples, find_min_samples, load_clip, load_feature_extractor

EXTRACTOR = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=False, return_attention_mask=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """One second."""
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(), 22_050)
    return file


def encode(clip: Path, max_seconds: float = 30, **arguments: Any) -> np.ndarray:
    return encode_samples(load_clip(clip, EXTRACTOR, max_seconds, 1), clip, EXTRACTOR, **arguments)


def test_max_seconds_cuts_the_clip(clip: Path) -> None:
    array = encode(clip, max_seconds=0.25)
    assert array.dtype == np.float16
    assert array.shape == (4_000,)


def test_run_part_gets_extractor_output(clip: Path) -> None:
    array = encode(clip, run_part=lambda features: -features.reshape(-1, 4))
    assert array.shape == (4_000, 4)
    np.testing.assert_array_equal(array.ravel(), -encode(clip))


def test_shortest_accepted_clip(clip: Path) -> None:
    assert len(load_clip(clip, EXTRACTOR, 30, min_samples=16_000)) == 16_000
    error = user_error(lambda: load_clip(clip, EXTRACTOR, 30, min_samples=16_001))
    assert error.file == str(clip)
    assert "16001" in str(error)


def test_states_too_large_for_float16(clip: Path) -> None:
    error = user_error(lambda: encode(clip, run_part=lambda features: features * 1e6))
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


@pytest.mark.parametrize(
    ("extractor", "start", "expected"),
    [
        (EXTRACTOR, 400, 400),
        (Wav2Vec2FeatureExtractor(do_normalize=True), 400, 400),
        (ASTFeatureExtractor(num_mel_bins=16, max_length=64), 1, 400),
        (SeamlessM4TFeatureExtractor(), 1, 560),
        (WhisperFeatureExtractor(feature_size=8, chunk_length=2), 1, 1),
    ],
    ids=["waveform", "normalized", "ast", "wav2vec2-bert", "whisper"],
)
def test_shortest_clip_of_each_feature_extractor(extractor: Any, start: int, expected: int) -> None:
    """A frame has 25 ms; the next one starts 10 ms later."""
    assert find_min_samples(extractor, start) == expected


@pytest.mark.parametrize("rate", [0, -1, 999, 400_001, 10**9, 16_000.5, "16000", True])
def test_sampling_rate_refused(tmp_path: Path, rate: object) -> None:
    EXTRACTOR.save_pretrained(tmp_path)
    error = user_error(lambda: load_feature_extractor(tmp_path, {"sampling_rate": rate}))
    assert error.key == "resample_encode.feature_extractor.sampling_rate"
    assert "from 1000 to 400000 Hz" in str(error)
