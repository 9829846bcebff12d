"""Targets of the pretraining: clusters of frames, from what the feature encoder returns.

As in HuBERT, the model predicts for masked frames which cluster they belong to. There are two sets of clusters: of the
sound of three frames, and of the rhythm and the contour of a second.
"""

from collections.abc import Callable

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from tools.pretrain.filter_bank import BANDS

CLUSTERS = 128
REACH = 12  # frames before and after: a second in all
FITTED_CLIPS = 400


def describe_sound(frames: np.ndarray) -> np.ndarray:
    """Return each frame with its neighbours. frames: standardised, float32 (frames, 2 * BANDS)."""
    padded = np.pad(frames, ((1, 1), (0, 0)), "edge")
    return np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1)


def describe_rhythm(frames: np.ndarray) -> np.ndarray:
    """Return the onsets in 8 bands and the level in 4 bands of the second around each frame."""
    levels, rises = (part.T for part in (frames[:, :BANDS], frames[:, BANDS:]))
    onsets = np.maximum(rises, 0).reshape(8, BANDS // 8, -1).mean(axis=1)
    contour = levels.reshape(4, BANDS // 4, -1).mean(axis=1)
    contour -= contour.mean(axis=1, keepdims=True)
    padded = np.pad(np.concatenate([onsets, contour / 2]), ((0, 0), (REACH, REACH)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=1)
    return windows.transpose(1, 0, 2).reshape(len(frames), -1)


def find_targets(features: np.ndarray, seed: int) -> list[np.ndarray]:
    """Cluster all frames twice: two arrays of cluster numbers, int64 (clips, frames).

    Args:
        features: of the feature encoder, float16 (clips, frames, channels); the last channels are constant.
    """
    rng = np.random.default_rng(seed)
    fitted = np.sort(rng.choice(len(features), min(FITTED_CLIPS, len(features)), replace=False))
    sample = features[fitted, :, : 2 * BANDS].astype(np.float32)
    mean, deviation = sample.mean(axis=(0, 1)), sample.std(axis=(0, 1))

    def cluster(describe: Callable[[np.ndarray], np.ndarray], dimensions: int) -> np.ndarray:
        def standardise(clip: np.ndarray) -> np.ndarray:
            return describe((clip[:, : 2 * BANDS].astype(np.float32) - mean) / deviation)

        described = np.concatenate([standardise(clip) for clip in features[fitted]])
        reduction = PCA(min(dimensions, *described.shape), random_state=seed).fit(described[::2])
        clusters = min(CLUSTERS, len(described) // 2)
        kmeans = MiniBatchKMeans(clusters, random_state=seed, batch_size=4096, n_init=1)
        kmeans.fit(reduction.transform(described))
        return np.stack([kmeans.predict(reduction.transform(standardise(clip))) for clip in features]).astype(np.int64)

    return [cluster(describe_sound, 24), cluster(describe_rhythm, 32)]
