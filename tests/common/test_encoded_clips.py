from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import load_from_disk
from helpers import user_error

from stages.common.encoded_clips import (
    EncodedClips,
    StoredFeatures,
    collate,
    cut_shards,
    describe_features,
    open_encoded_clips,
    select_split,
    write_description,
    write_shard,
)
from stages.common.paths import ENCODED


def write_encoded_clips(folder: Path, column: str, rows: list[tuple[str, str, np.ndarray]]) -> None:
    """Write (clip, label, features) rows of the labels a and b."""
    folder.mkdir()
    columns, shards = describe_features(column, ["a", "b"], rows[0]), cut_shards([1] * len(rows))
    for name, part in shards.items():
        write_shard(folder / name, columns, rows[part])
    write_description(folder, columns, shards, {})


@pytest.mark.parametrize(
    ("column", "shapes"),
    [
        ("input_values", [(5,), (3,), (1,), (5,)]),
        ("input_features", [(4, 6)] * 4),
        ("extract_features", [(5, 3), (2, 3), (1, 3), (4, 3)]),
        ("last_hidden_state", [(1, 3)] * 4),
    ],
)
@pytest.mark.parametrize("shard_clips", [256, 3])
def test_features_are_read_as_they_were_written(
    tmp_path: Path, column: str, shapes: list[tuple[int, ...]], shard_clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.common.encoded_clips.SHARD_CLIPS", shard_clips)
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=shape).astype(np.float16) for shape in shapes]
    names = [f"clip{number}" for number in range(4)]
    write_encoded_clips(tmp_path / "encoded", column, list(zip(names, "abab", arrays)))
    assert len(list((tmp_path / "encoded").glob("*.arrow"))) == 1 + (shard_clips == 3)
    rows = load_from_disk(tmp_path / "encoded")
    for read, written in zip(rows.with_format("numpy")[column], arrays, strict=True):
        np.testing.assert_array_equal(read, written)
    splits = pd.DataFrame({"clip": names[::-1], "label": list("baba"), "split": ["test", "train", "test", "test"]})
    clips = select_split(EncodedClips(rows, ["a", "b"], None, column, {}), splits, "test")
    assert clips.names == ["clip0", "clip1", "clip3"]
    assert clips.labels.tolist() == [0, 1, 1]
    assert isinstance(clips.features, StoredFeatures)
    for array, number in zip(clips.features, [0, 1, 3], strict=True):
        assert array.dtype == np.float16
        assert not array.flags.writeable  # a view of the file
        np.testing.assert_array_equal(array, arrays[number])


def test_spectrograms_of_different_shapes_refused(tmp_path: Path) -> None:
    rows = [(f"clip{number}", "a", np.zeros((4, 5 + number), np.float16)) for number in range(2)]
    error = user_error(lambda: write_encoded_clips(tmp_path / "encoded", "input_features", rows))
    assert "clip clip1: its spectrogram has the shape (4, 6), the first has (4, 5)" in str(error)


@pytest.mark.slow
def test_only_padded_batches_have_masks(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)
    long, short = np.ones(1600, np.float32), np.ones(800, np.float32)
    assert set(collate(encoded, [(long, 0), (long, 1)])) == {"input_values", "labels"}
    padded = collate(encoded, [(long, 0), (short, 1)])
    assert padded["attention_mask"].sum(dim=1).tolist() == [1600, 800]
    assert padded["input_values"][1, 800:].abs().sum() == 0


@pytest.mark.slow
def test_cached_frames_cut_to_shortest(finished: Path) -> None:
    encoded = open_encoded_clips(finished / ENCODED)._replace(feature_column="extract_features")
    batch = collate(encoded, [(np.ones((9, 4), np.float32), 0), (np.ones((7, 4), np.float32), 1)])
    assert set(batch) == {"input_values", "labels"}
    assert batch["input_values"].shape == (2, 7, 4)
