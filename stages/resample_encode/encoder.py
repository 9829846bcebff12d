"""Encode the clips of data/raw for the model in models/base, and write them in shards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Features
from tqdm import tqdm

from stages.common.audio import is_silent
from stages.common.configs import load_config, receptive_field
from stages.common.device import find_device
from stages.common.encoded_clips import CACHE_COLUMNS, write_shard
from stages.common.paths import BASE, RAW
from stages.common.tables import require_intact
from stages.common.threads import map_in_threads
from stages.resample_encode import features, model_part
from stages.resample_encode.params import ResampleEncodeParams


class ClipRow(NamedTuple):
    """A clip to encode. path: relative to data/raw."""

    clip: str
    label: str
    path: str
    sha256: str


class Encoder:
    """Encodes clips of the current folder's data/raw with its models/base.

    Attributes:
        extractor: the feature extractor.
        column: of data/encoded, for the model's input or the output of a part of the model.
        silent: names of the encoded clips of which the model gets only silence.
    """

    def __init__(self, params: ResampleEncodeParams) -> None:
        self.params, self.silent = params, set[str]()
        self.extractor = features.load_feature_extractor(BASE, params.feature_extractor)
        self.column = CACHE_COLUMNS.get(params.cache, self.extractor.model_input_names[0])
        config = load_config(BASE)
        self._min_samples = features.find_min_samples(self.extractor, receptive_field(config))
        cached = params.cache != "input"
        self._run_part = model_part.load_part(BASE, config, params.cache, params.precision) if cached else None

    def encode(self, row: ClipRow) -> np.ndarray:
        """Return the features of a clip, as `encode_samples` does.

        Raises:
            UserError: the clip is damaged, too short or too loud.
        """
        file = RAW / row.path
        require_intact(file, row.sha256)
        samples = features.load_clip(file, self.extractor, self.params.max_seconds, self._min_samples)
        if is_silent(samples):
            self.silent.add(row.clip)
        return features.encode_samples(samples, file, self.extractor, self._run_part)

    def write_shards(
        self, folder: Path, columns: Features, rows: Sequence[ClipRow], shards: dict[str, slice], workers: int
    ) -> None:
        """Encode clips on threads, and write them in their order.

        Args:
            columns: as `describe_features` returns them. shards: as `cut_shards` returns them.
        """
        encoded = map_in_threads(self.encode, rows, workers)
        arrays = iter(tqdm(encoded, "encode", len(rows), unit="clip"))
        for name, part in shards.items():
            # map takes no array before it has a row, so a shard leaves those of the next one.
            write_shard(folder / name, columns, ((row.clip, row.label, next(arrays)) for row in rows[part]))


def count_workers(params: ResampleEncodeParams) -> int:
    """Return one thread for each core; on a GPU two, which keep it busy, because each needs memory for a clip there."""
    cores = os.cpu_count() or 1
    on_gpu = params.cache != "input" and find_device() != "cpu"
    return params.workers or (min(2, cores) if on_gpu else cores)
