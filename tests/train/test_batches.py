"""The order of clips, and their windows."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import set_params
from hypothesis import given
from hypothesis import strategies as st

from stages.common.encoded_clips import open_encoded_clips, select_split
from stages.common.paths import ENCODED, SPLITS
from stages.common.tables import read_table
from stages.resample_encode.__main__ import main as resample_encode
from stages.train.batches import IGNORED, EpochBatches, TrainingClips, load_batches


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3), st.integers(0, 5))
def test_processes_share_each_batch(clips: int, size: int, ranks: int, seed: int, epoch: int) -> None:
    """Together they have the batches that one process has, in its order; each clip once in an epoch."""
    alone = EpochBatches(clips, size, seed)
    alone.epoch = epoch
    shared = [EpochBatches(clips, size, seed, rank, ranks) for rank in range(ranks)]
    for one in shared:
        one.epoch = epoch
    shares = list(zip(*shared))
    assert [list(chain(*parts)) for parts in shares] == list(alone)
    assert sorted(chain(*alone)) == list(range(clips))
    assert {len(one) for one in (alone, *shared)} == {len(shares)}
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in shares)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 5))
def test_balanced_order_has_each_label_equally_often(labels: list[int], size: int, ranks: int, epoch: int) -> None:
    """Each label in equal numbers, its clips in turn; processes share the batches."""
    number, balance = len(labels), np.array(labels)
    shared = [EpochBatches(number, size, 1, rank, ranks, balance) for rank in range(ranks)]
    for one in shared:
        one.epoch = epoch
    draws = list(chain(*(chain(*parts) for parts in zip(*shared))))
    alone = EpochBatches(number, size, 1, balance=balance)
    alone.epoch = epoch
    assert draws == list(chain(*alone))
    assert len(set(draws)) == number
    counts = np.bincount(balance[np.array(draws) % number])
    assert np.ptp(counts[np.unique(balance)]) <= 1
    for label in set(labels):
        times = Counter(draw % number for draw in draws if labels[draw % number] == label)
        assert max(times.values()) - (min(times.values()) if len(times) == labels.count(label) else 0) <= 1


def test_repeated_clip_has_another_window() -> None:
    batches = EpochBatches(4, 4, seed=1, balance=np.array([0, 1, 1, 1]))
    draws = sorted(chain(*batches))
    assert draws[0] == 0
    assert 4 in draws
    assert batches.find_position(0) == batches.draw_positions()[0]
    assert batches.find_position(4) != batches.find_position(0)
    assert batches.find_position(4) == batches.find_position(4)


def test_partners_are_balanced_too() -> None:
    balance, rng = np.array([0] * 98 + [1] * 2), np.random.default_rng(0)
    for labels, share in ((None, 0.02), (balance, 0.5)):
        batches = EpochBatches(100, 4, seed=1, balance=labels)
        drawn = balance[[batches.draw_partner(rng) for _ in range(500)]]
        assert drawn.mean() == pytest.approx(share, abs=0.07)


def test_epochs_differ() -> None:
    batches = EpochBatches(50, 8, seed=1)
    first, positions = list(batches), batches.draw_positions()
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first
    assert (batches.draw_positions() != positions).all()
    assert list(EpochBatches(50, 8, seed=2)) != first


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "window"), [("input", 3000), ("feature_encoder", 6), ("input", None)])
def test_clips_kept_on_a_device_give_the_same_batches(copied: Path, cache: str, window: int | None) -> None:
    """The device is the CPU here; a GPU only copies numbers."""
    set_params(copied, {"resample_encode.cache": cache})
    resample_encode()
    encoded = open_encoded_clips(ENCODED)
    clips = select_split(encoded, read_table(SPLITS), "train")
    batches = EpochBatches(len(clips.labels), 3, seed=5)
    batches.epoch = 2
    read = TrainingClips(encoded, clips, window, batches)
    kept = TrainingClips(encoded, clips, window, batches, torch.device("cpu"))
    for one, other in zip(load_batches(read), load_batches(kept), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert one[encoded.input_name].dtype == torch.float32


def test_windows_are_anywhere_in_a_clip(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)
    clips = select_split(encoded, read_table(finished / SPLITS), "train")
    batches = EpochBatches(len(clips.labels), 4, seed=0)
    dataset = TrainingClips(encoded, clips, 1000, batches)
    starts = set()
    for batches.epoch in range(8):
        batch = dataset.__getitems__([3])
        window = batch[encoded.input_name][0].numpy().astype(np.float16)
        clip = clips.features[3]
        found = [i for i in np.flatnonzero(clip == window[0]) if np.array_equal(clip[i : i + 1000], window)]
        assert found
        assert batch["labels"].tolist() == [clips.labels[3]]
        starts.add(int(found[0]))
    assert len(starts) > 4


def test_empty_share_is_ignored(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)
    clips = select_split(encoded, read_table(finished / SPLITS), "train")
    batch = TrainingClips(encoded, clips, None, EpochBatches(len(clips.labels), 4, 0)).__getitems__([])
    assert batch["labels"].tolist() == [IGNORED]
    assert len(batch[encoded.input_name]) == 1
