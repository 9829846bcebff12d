from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import user_error

from stages.common.encoded_clips import EncodedClips, open_encoded_clips, select_split
from stages.common.paths import ENCODED, SPLITS
from stages.common.tables import read_table
from stages.train.augment import Augmenter, make_augmenter
from stages.train.batches import EpochBatches, TrainingClips, load_batches
from stages.train.params import Augment

WINDOW = np.sin(np.arange(4000) / 7).astype(np.float32)
OTHER = np.sign(np.sin(np.arange(3000) / 11)).astype(np.float32)
ALL: dict[str, Any] = {"mixup": 0.4, "polarity": True, "time_shift": 0.5, "noise": [10, 40]}


def change(seed: int = 0, keep_level: bool = False, **params: Any) -> tuple[np.ndarray, np.ndarray]:
    augmenter = Augmenter(Augment(**params), 3, keep_level)
    return augmenter.change((WINDOW, 2), (OTHER, 0), np.random.default_rng(seed))


def level(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))


def test_mixup_mixes_windows_and_labels_alike() -> None:
    array, shares = change(mixup=1.0)
    assert shares.dtype == array.dtype == np.float32
    assert shares.sum() == pytest.approx(1)
    assert 0.05 < shares[2] < 0.95
    assert shares[1] == 0
    padded = np.append(OTHER, np.zeros(1000, np.float32))
    np.testing.assert_allclose(array, shares[2] * WINDOW + shares[0] * padded, atol=1e-6)


def test_mixup_of_clips_of_one_label() -> None:
    augmenter = Augmenter(Augment(mixup=1.0), 3, keep_level=False)
    assert augmenter.change((WINDOW, 1), (OTHER, 1), np.random.default_rng(0))[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("decibels", [0, 20])
def test_noise_has_the_ratio(decibels: int) -> None:
    array, label = change(noise=[decibels, decibels])
    assert 20 * np.log10(level(WINDOW) / level(array - WINDOW)) == pytest.approx(decibels, abs=0.3)
    assert label == 2


def test_gain_shift_and_polarity() -> None:
    gains = [20 * np.log10(level(change(seed, gain=[-6, 3])[0]) / level(WINDOW)) for seed in range(20)]
    assert -6 <= min(gains) < -3 < 0 < max(gains) <= 3
    shifted = change(time_shift=0.5)[0]
    steps = [step for step in range(-2000, 2001) if np.array_equal(np.roll(WINDOW, step), shifted)]
    assert steps
    assert 0 not in steps
    assert {float(change(seed, polarity=True)[0][1] / WINDOW[1]) for seed in range(20)} == {-1.0, 1.0}


@pytest.mark.parametrize("keep_level", [True, False])
def test_level_is_kept_if_clips_are_normalised(keep_level: bool) -> None:
    found = level(change(keep_level=keep_level, mixup=1.0, noise=[0, 0])[0])
    assert (found == pytest.approx(level(WINDOW), rel=1e-5)) == keep_level


def load(encoded: EncodedClips, folder: Path, window: int | None, **batches: Any) -> list[dict[str, Any]]:
    clips = select_split(encoded, read_table(folder / SPLITS), "train")
    order = EpochBatches(len(clips.labels), 3, seed=5, **batches)
    order.epoch = 2
    augmenter = make_augmenter(Augment(**ALL), encoded)
    return list(load_batches(TrainingClips(encoded, clips, window, order, None, augmenter)))


def test_batches_repeat_and_can_be_shared(finished: Path) -> None:
    """What happens to a clip depends on the seed, the epoch and the clip only."""
    encoded = open_encoded_clips(finished / ENCODED)
    alone = load(encoded, finished, 3000)
    shared = [load(encoded, finished, 3000, rank=rank, ranks=3) for rank in range(3)]
    assert (shared[2][-1]["labels"] == -100).all()  # the last batch has two clips
    for batch, *shares in zip(alone, *shared, strict=True):
        for name in ("input_values", "labels"):
            parts = [share[name] for share in shares if (share["labels"] != -100).all()]
            np.testing.assert_array_equal(np.concatenate(parts), batch[name])
        assert batch["labels"].shape[1] == 10
    assert load(encoded, finished, None)[0]["input_values"].shape == (3, 16_000)


def test_what_the_input_does_not_allow(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)
    assert encoded.extractor.do_normalize
    assert make_augmenter(Augment(), encoded) is None
    assert user_error(lambda: make_augmenter(Augment(gain=[-6, 6]), encoded)).key == "train.augment.gain"
    encoded.extractor.do_normalize = False
    assert make_augmenter(Augment(gain=[-6, 6]), encoded)
