"""The batches of training: in each epoch all clips in a new order, and of each clip a new window."""

import warnings
from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from stages.common.encoded_clips import Clips, EncodedClips, StoredFeatures, collate
from stages.train.augment import Augmenter

IGNORED = -100  # the label that torch's cross-entropy leaves out
RESIDENT_SHARE = 0.25  # of the GPU's free memory that clips may take


class EpochBatches:
    """The clips of each batch of an epoch: a batch sampler for a DataLoader.

    The order and the windows depend only on the seed, the epoch and the clip. So training can go on in the middle of an
    epoch, and several processes can share a batch.

    It yields draws. That of a clip is its index; if the balanced order has it again, plus the number of clips each
    time, so that it gets another window.

    Args:
        balance: label ids, int64 (clips,), of which each should come equally often; None: each clip comes once.
    """

    def __init__(
        self, clips: int, size: int, seed: int, rank: int = 0, ranks: int = 1, balance: np.ndarray | None = None
    ) -> None:
        self.clips, self.size, self.seed, self.rank, self.ranks = clips, size, seed, rank, ranks
        self.balance, self.epoch = balance, 0
        self.positions: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return ceil(self.clips / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the draws of this process's share of each batch; the share may be empty."""
        rng = np.random.default_rng([self.seed, self.epoch, 0])
        order = rng.permutation(self.clips) if self.balance is None else draw_balanced(self.balance, rng)
        for start in range(0, self.clips, self.size):
            yield np.array_split(order[start : start + self.size], self.ranks)[self.rank].tolist()

    def draw_positions(self) -> np.ndarray:
        """Return a number from 0 to below 1 for each clip, float64 (clips,): the place of its window."""
        return np.random.default_rng([self.seed, self.epoch, 1]).random(self.clips)

    def find_position(self, draw: int) -> float:
        """Return a number from 0 to below 1: the place of a draw's window in its clip."""
        if draw >= self.clips:
            return np.random.default_rng([self.seed, self.epoch, 1, draw]).random()
        if self.positions[0] != self.epoch:
            self.positions = (self.epoch, self.draw_positions())
        return self.positions[1][draw]

    def draw_partner(self, rng: np.random.Generator) -> int:
        """Draw a clip to mix with another one: any, or in the balanced order one of a label that is drawn first."""
        if self.balance is None:
            return int(rng.integers(self.clips))
        label = rng.choice(np.unique(self.balance))
        return int(rng.choice(np.flatnonzero(self.balance == label)))


def draw_balanced(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many times as there are clips, each label equally often (or once more), its clips in turn.

    Args:
        labels: ids, int64 (clips,).

    Returns:
        Draws, int64 (clips,), as `EpochBatches` yields them.
    """
    present = np.unique(labels)
    sizes = rng.permutation([len(part) for part in np.array_split(labels, len(present))])
    draws = []
    for label, size in zip(present, sizes):
        clips = np.flatnonzero(labels == label)
        rounds = [rng.permutation(clips) + turn * len(labels) for turn in range(ceil(size / len(clips)))]
        draws.append(np.concatenate(rounds)[:size])
    return rng.permutation(np.concatenate(draws))


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
        augmenter: changes the windows; None leaves them as they are. With it, no device.
    """

    def __init__(
        self,
        encoded: EncodedClips,
        clips: Clips,
        window: int | None,
        batches: EpochBatches,
        device: torch.device | None = None,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.encoded, self.clips, self.window, self.batches = encoded, clips, window, batches
        self.resident = ResidentFeatures(clips.features, device) if device else None  # type: ignore[arg-type]
        self.augmenter = augmenter

    def __len__(self) -> int:
        return len(self.clips.labels)

    def __getitems__(self, draws: list[int]) -> dict[str, torch.Tensor]:
        """Return a batch as `collate` does. An empty one becomes a clip that the loss ignores.

        After mixup, the labels are the share of each, float32 (batch, labels).
        """
        chosen = draws or [0]
        if self.augmenter:
            return self._augment(self.augmenter, chosen, ignored=not draws)
        numbers = [self._clip(draw) for draw in chosen]
        labels = self.clips.labels[numbers] if draws else np.array([IGNORED])
        starts, arrays = zip(*map(self._cut, chosen))
        shape = arrays[0].shape
        if self.resident is None or any(array.shape != shape for array in arrays):
            return collate(self.encoded, [(a.astype(np.float32), int(label)) for a, label in zip(arrays, labels)])
        # Windows of (frames, channels) start at a frame.
        spans = [(clip, start * int(np.prod(shape[1:]))) for clip, start in zip(numbers, starts)]
        return {
            self.encoded.input_name: self.resident.cut(spans, shape),
            "labels": torch.tensor(labels).to(self.resident.values.device),
        }

    def _augment(self, augmenter: Augmenter, draws: list[int], ignored: bool) -> dict[str, torch.Tensor]:
        windows = []
        for draw in draws:
            rng = np.random.default_rng([self.batches.seed, self.batches.epoch, 2, draw])
            other = self.batches.draw_partner(rng)
            own, partner = (
                (self._cut(number)[1].astype(np.float32), int(self.clips.labels[self._clip(number)]))
                for number in (draw, other)
            )
            windows.append(augmenter.change(own, partner, rng))
        batch = collate(self.encoded, [(array, 0) for array, _ in windows])
        labels = torch.from_numpy(np.stack([label for _, label in windows]))
        return {**batch, "labels": torch.full_like(labels, IGNORED) if ignored else labels}

    def _clip(self, draw: int) -> int:
        return draw % len(self)

    def _cut(self, draw: int) -> tuple[int, np.ndarray]:
        """Return the start of a draw's window in this epoch, and the window, float16; it is not read yet."""
        array = self.clips.features[self._clip(draw)]
        if self.window is None or len(array) <= self.window:
            return 0, array
        start = int(self.batches.find_position(draw) * (len(array) - self.window + 1))
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
