"""Windows: sections of a clip that the model sees, in samples or, behind a cached feature encoder, in frames."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import List

from stages.common.encoded_clips import Clips, EncodedClips
from stages.common.errors import UserError
from stages.common.model_types import AVERAGED, refuse_windows, refuse_windows_of_means


def window_length(encoded: EncodedClips, model: torch.nn.Module, seconds: float | None, key: str) -> int | None:
    """Return the length of a window in samples, or in frames if the feature encoder's output is cached.

    Args:
        key: of params.yaml that asks for the windows, for messages.

    Returns:
        None for complete clips.

    Raises:
        UserError: the model takes spectrograms of a fixed size, the base model's output is cached, no clip is as
            long as the window, or the window is too short for the model.
    """
    if seconds is None:
        return None
    if encoded.cached_part in AVERAGED:
        raise refuse_windows_of_means(key)
    if encoded.cached_part is None and not isinstance(encoded.rows.features[encoded.feature_column], List):
        raise refuse_windows(type(encoded.extractor).__name__, key)
    sampling_rate = encoded.extractor.sampling_rate
    samples = round(seconds * sampling_rate)
    frames = int(model._get_feat_extract_output_lengths(samples))
    window = frames if encoded.cached_part else samples
    longest = _longest(encoded)
    if window > longest:
        longest_seconds = longest * seconds / window if encoded.cached_part else longest / sampling_rate
        raise UserError(
            f"{seconds} s is longer than the longest clip ({longest_seconds:.3g} s); "
            "make it shorter, or null for complete clips",
            key=key,
        )
    if frames < 1:
        raise UserError(f"{seconds} s is shorter than one frame of the model; make it longer", key=key)
    return window


def _longest(encoded: EncodedClips) -> int:
    """Return the length of the longest clip, in samples or frames."""
    chunks = encoded.rows.data.column(encoded.feature_column).chunks
    return max(pc.max(pc.list_value_length(getattr(chunk, "storage", chunk))).as_py() for chunk in chunks)


class ClipDataset(torch.utils.data.Dataset):
    """Complete clips for a data loader."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return features, float32, (samples,), (bins, frames) or cached (frames, channels), and the label's id."""
        return self.clips.features[index].astype(np.float32), int(self.clips.labels[index])


def equal_length_batches(shapes: Sequence[tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Return the indices of all clips in batches, each of clips of the same shape."""
    order = sorted(range(len(shapes)), key=shapes.__getitem__)
    groups = [list(group) for _, group in groupby(order, key=shapes.__getitem__)]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


def cut_windows(array: np.ndarray, window: int | None) -> list[np.ndarray]:
    """Cut a clip into windows side by side. The last one starts earlier, so that it is as long as the others."""
    if window is None or len(array) <= window:
        return [array]
    starts = [*range(0, len(array) - window, window), len(array) - window]
    return [array[start : start + window] for start in starts]
