"""Encode the clips of data/raw for the model in models/base, and write them in shards."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Features
from tqdm import tqdm

from stages.common.audio import is_silent
from stages.common.configs import load_config, receptive_field
from stages.common.device import find_device, find_devices
from stages.common.encoded_clips import CACHE_COLUMNS, write_shard
from stages.common.paths import BASE, RAW
from stages.common.segments import count_segments, read_segments
from stages.common.tables import require_intact
from stages.common.threads import stream_in_threads
from stages.resample_encode import features
from stages.resample_encode.params import ResampleEncodeParams


class ClipRow(NamedTuple):
    """A clip to encode. path: relative to data/raw."""

    clip: str
    label: str
    path: str
    sha256: str
    seconds: float


class Encoder:
    """Encodes clips of the current folder's data/raw with its models/base.

    Attributes:
        extractor: the feature extractor.
        column: of data/encoded, for the model's input or the output of a part of the model.
        silent: the names of encoded clips, or of their segments, of which the model gets only silence, by clip.
    """

    def __init__(self, params: ResampleEncodeParams) -> None:
        self.params, self.silent = params, defaultdict[str, list[str]](list)
        self.extractor = features.load_feature_extractor(BASE, params.feature_extractor)
        self.column = CACHE_COLUMNS.get(params.cache, self.extractor.model_input_names[0])
        config = load_config(BASE)
        for problem in params.find_unsupported(config.to_dict()):
            raise problem
        self._min_samples = features.find_min_samples(self.extractor, receptive_field(config))
        self._run_part = None
        if params.cache != "input":
            from stages.resample_encode.model_part import load_part  # which takes 4 s to import

            self._run_part = load_part(BASE, config, params.cache, params.precision, count_workers(params))

    def encode(self, row: ClipRow) -> Iterator[tuple[Any, ...]]:
        """Yield the row of a clip in data/encoded, or the rows of its segments.

        The last of a row is the features, as `encode_samples` returns them.

        Raises:
            UserError: the clip is damaged, too short or too loud.
        """
        file, rate, seconds = RAW / row.path, self.extractor.sampling_rate, self.params.max_seconds
        require_intact(file, row.sha256)
        if not self.params.segments:
            samples = features.load_clip(file, self.extractor, seconds, self._min_samples)
            yield row.clip, row.label, self._encode(samples, file, row.clip, row.clip)
            return
        for segment in read_segments(file, rate, seconds):
            features.require_length(segment.samples, file, self.extractor, self._min_samples)
            start = segment.start / rate
            name = f"{row.clip} at {start:g} s"
            yield row.clip, row.label, start, self._encode(segment.samples, file, row.clip, name)

    def _encode(self, samples: np.ndarray, file: Path, clip: str, name: str) -> np.ndarray:
        if is_silent(samples):
            self.silent[clip].append(name)
        return features.encode_samples(samples, file, self.extractor, self._run_part)

    def count_rows(self, rows: Sequence[ClipRow]) -> list[int]:
        """Return how many rows of data/encoded each clip gets, by its length in clips.csv."""
        seconds = self.params.max_seconds
        return [count_segments(row.seconds, seconds) if self.params.segments else 1 for row in rows]

    def write_shards(
        self, folder: Path, columns: Features, rows: Sequence[ClipRow], shards: dict[str, slice], workers: int
    ) -> Iterator[tuple[str, list[str]]]:
        """Encode the clips of shards on threads, and write them in their order.

        Args:
            columns: as `describe_features` returns them. shards: all or some of those that `cut_shards` returns.

        Yields:
            The name of each shard when it is complete, and its silent clips or segments.
        """
        chosen = [row for part in shards.values() for row in rows[part]]
        encoded = stream_in_threads(self.encode, chosen, workers)
        unit = "segment" if self.params.segments else "clip"
        clips = groupby(tqdm(encoded, "encode", sum(self.count_rows(chosen)), unit=unit), itemgetter(0))
        for name, part in shards.items():
            write_shard(folder / name, columns, (row for _ in rows[part] for row in next(clips)[1]))
            yield name, [name for row in rows[part] for name in self.silent.get(row.clip, [])]


def count_workers(params: ResampleEncodeParams) -> int:
    """Return one thread for each core; for each GPU two, which keep it busy: each needs memory for a clip there."""
    cores = os.cpu_count() or 1
    on_gpu = params.cache != "input" and find_device() != "cpu"
    return params.workers or (min(2 * len(find_devices()), cores) if on_gpu else cores)
