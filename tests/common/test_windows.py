from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import set_params, user_error, write_tiny_model
from hypothesis import given
from hypothesis import strategies as st

from stages.common.encoded_clips import open_encoded_clips
from stages.common.paths import ENCODED
from stages.common.windows import cut_windows, equal_length_batches, window_length
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.__main__ import main as train


@given(st.integers(1, 300), st.one_of(st.none(), st.integers(1, 100)))
def test_windows_cover_the_clip(samples: int, window: int | None) -> None:
    clip = np.arange(samples)
    windows = cut_windows(clip, window)
    length = min(samples, window or samples)
    assert set(np.concatenate(windows)) == set(clip)
    assert {len(array) for array in windows} == {length}
    assert len(windows) == -(-samples // length)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 6))
def test_batches_of_equal_length(lengths: list[int], batch_size: int) -> None:
    batches = equal_length_batches([(length,) for length in lengths], batch_size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len({lengths[index] for index in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) <= batch_size


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "seconds"), [("input", 0.03), ("feature_encoder", 0.01)])
def test_window_shorter_than_frame_refused(copied: Path, cache: str, seconds: float) -> None:
    """The convolutions of the tiny model span 55 ms: 25 ms, four times, 10 ms apart."""
    set_params(copied, {"resample_encode.cache": cache, "train.freeze": "feature_encoder"})
    resample_encode()
    set_params(copied, {"train.window_seconds": seconds})
    error = user_error(train)
    assert error.key == "train.window_seconds"
    assert f"{seconds} s is shorter than one frame" in str(error)
    assert not Path("models/.finetuned.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "longest"), [("input", "(1 s)"), ("feature_encoder", "(0.97")])
def test_window_longer_than_clips_refused(copied: Path, cache: str, longest: str) -> None:
    set_params(copied, {"resample_encode.cache": cache, "train.freeze": "feature_encoder"})
    resample_encode()
    set_params(copied, {"train.window_seconds": 1.5})
    error = user_error(train)
    assert error.key == "train.window_seconds"
    assert "1.5 s is longer than the longest clip" in str(error)
    assert longest in str(error)
    assert not Path("models/.finetuned.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["whisper", "ast"])
def test_windows_of_spectrograms_refused(copied: Path, architecture: str) -> None:
    write_tiny_model(architecture)
    set_params(copied, {"resample_encode.feature_extractor": {}})
    resample_encode()
    assert user_error(train).key == "train.window_seconds"


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["base", "layers"])
def test_windows_of_cached_base_refused(copied: Path, cache: str) -> None:
    set_params(copied, {"resample_encode.cache": cache})
    resample_encode()
    encoded = open_encoded_clips(ENCODED)
    error = user_error(lambda: window_length(encoded, torch.nn.Identity(), 0.5, "evaluate.window_seconds"))
    assert error.key == "evaluate.window_seconds"
