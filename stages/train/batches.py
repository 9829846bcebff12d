"""The batches of training: in each epoch all clips in a new order, and of each clip a new window."""

import warnings
from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from stages.common.encoded_clips import Clips, EncodedClips, StoredFeatures, collate

IGNORED = -100  # the label that torch's cross-entropy leaves out
RESIDENT_SHARE = 0.25  # of the GPU's free memory that clips may take


class EpochBatches:
    """The clips of each batch of an epoch: a batch sampler for a DataLoader.

    The order and the windows depend only on the seed, the epoch and the clip. So training can go on in the middle of an
    epoch, and several processes can share a batch.
    """

    def __init__(self, clips: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.clips, self.size, self.seed, self.rank, self.ranks = clips, size, seed, rank, ranks
        self.epoch = 0

    def __len__(self) -> int:
        return ceil(self.clips / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of this process's share of each batch; the share may be empty."""
        order = np.random.default_rng([self.seed, self.epoch, 0]).permutation(self.clips)
        for start in range(0, self.clips, self.size):
            yield np.array_split(order[start : start + self.size], self.ranks)[self.rank].tolist()

    def draw_positions(self) -> np.ndarray:
        """Return a number from 0 to below 1 for each clip, float64 (clips,): the place of its window."""
        return np.random.default_rng([self.seed, self.epoch, 1]).random(self.clips)


class ResidentFeatures:
    """The features of all clips in one tensor on a device: a batch then takes two kernels and no copy.

    Args:
        features: arrays of float16 whose windows are contiguous.
    """

    def __init__(self, features: StoredFeatures, device: torch.device) -> None:
        sizes = [features[index].size for index in range(len(features))]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self.values = torch.empty(int(self.offsets[-1]), dtype=torch.float16, device=device)
        with warnings.catch_warnings(action="ignore"):  # the arrays are views of a file, which torch cannot write to
            for index, start in enumerate(self.offsets[:-1]):
                array = torch.from_numpy(features[index].reshape(-1))
                self.values[start : start + len(array)].copy_(array)

    def cut(self, spans: list[tuple[int, int]], shape: tuple[int, ...]) -> torch.Tensor:
        """Return windows of a shape, float32 (windows, *shape). spans: clip, and its first value of the window."""
        starts = torch.tensor([self.offsets[clip] + first for clip, first in spans])
        places = starts.to(self.values.device)[:, None] + torch.arange(int(np.prod(shape)), device=self.values.device)
        return self.values[places].float().reshape(-1, *shape)


class TrainingClips(Dataset):
    """The clips of the training split, fetched by the batch: a window of each, or the complete clip.

    Args:
        window: its length, as `window_length` returns it; None for complete clips.
        device: where to keep the clips; None to read them from the file.
    """

    def __init__(
        self,
        encoded: EncodedClips,
        clips: Clips,
        window: int | None,
        batches: EpochBatches,
        device: torch.device | None = None,
    ) -> None:
        self.encoded, self.clips, self.window, self.batches = encoded, clips, window, batches
        self.resident = ResidentFeatures(clips.features, device) if device else None  # type: ignore[arg-type]
        self.positions: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return len(self.clips.labels)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Return a batch as `collate` does. An empty one becomes a clip that the loss ignores."""
        chosen = indices or [0]
        labels = self.clips.labels[chosen] if indices else np.array([IGNORED])
        starts, arrays = zip(*map(self._cut, chosen))
        shape = arrays[0].shape
        if self.resident is None or any(array.shape != shape for array in arrays):
            return collate(self.encoded, [(a.astype(np.float32), int(label)) for a, label in zip(arrays, labels)])
        # Windows of (frames, channels) start at a frame.
        spans = [(clip, start * int(np.prod(shape[1:]))) for clip, start in zip(chosen, starts)]
        return {
            self.encoded.input_name: self.resident.cut(spans, shape),
            "labels": torch.tensor(labels).to(self.resident.values.device),
        }

    def _cut(self, index: int) -> tuple[int, np.ndarray]:
        """Return the start of a clip's window in this epoch, and the window, float16; it is not read yet."""
        array = self.clips.features[index]
        if self.window is None or len(array) <= self.window:
            return 0, array
        if self.positions[0] != self.batches.epoch:
            self.positions = (self.batches.epoch, self.batches.draw_positions())
        start = int(self.positions[1][index] * (len(array) - self.window + 1))
        return start, array[start : start + self.window]


def load_batches(clips: TrainingClips) -> DataLoader:
    """Return a data loader. Its generator is its own: torch's global one is left to the model's dropout."""
    return DataLoader(clips, batch_sampler=clips.batches, collate_fn=_as_it_is, generator=torch.Generator())


def _as_it_is(batch: Any) -> Any:
    return batch


def choose_resident_device(device: torch.device, features: Any) -> torch.device | None:
    """Return the device if it is a GPU with enough memory for all clips."""
    if device.type != "cuda":
        return None
    size = 2 * sum(features[index].size for index in range(len(features)))
    return device if size < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] else None
