from pathlib import Path

import numpy as np
import pytest

from stages.common.encoded_clips import collate, open_encoded_clips
from stages.common.paths import ENCODED

pytestmark = pytest.mark.slow


def test_only_padded_batches_have_masks(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)
    long, short = np.ones(1600, np.float32), np.ones(800, np.float32)
    assert set(collate(encoded, [(long, 0), (long, 1)])) == {"input_values", "labels"}
    padded = collate(encoded, [(long, 0), (short, 1)])
    assert padded["attention_mask"].sum(dim=1).tolist() == [1600, 800]
    assert padded["input_values"][1, 800:].abs().sum() == 0


def test_cached_frames_cut_to_shortest(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)._replace(feature_column="extract_features")
    batch = collate(encoded, [(np.ones((9, 4), np.float32), 0), (np.ones((7, 4), np.float32), 1)])
    assert set(batch) == {"input_values", "labels"}
    assert batch["input_values"].shape == (2, 7, 4)
