"""Change the windows of training clips at random: mixup, polarity, shift, gain and noise."""

import numpy as np
from datasets import List

from stages.common.encoded_clips import EncodedClips
from stages.train.limits import refuse_change, refuse_gain
from stages.train.params import Augment

Window = tuple[np.ndarray, int]  # float32 features, and the id of the label


def make_augmenter(params: Augment | None, encoded: EncodedClips) -> "Augmenter | None":
    """Return what changes the windows; None if params ask for nothing.

    Raises:
        UserError: the model's input does not allow it.
    """
    if params is None or params == Augment():
        return None
    normalized = bool(getattr(encoded.extractor, "do_normalize", False))
    samples = isinstance(encoded.rows.features[encoded.feature_column], List)
    for key in () if samples else ("polarity", "time_shift", "gain", "noise"):
        if getattr(params, key):
            raise refuse_change(type(encoded.extractor).__name__, key)
    if params.gain and normalized:
        raise refuse_gain()
    return Augmenter(params, len(encoded.labels), normalized and samples)


class Augmenter:
    """Changes one window after the other. All random numbers come from the generator of the window.

    Args:
        labels: their number.
        keep_level: give a window its level back after mixup and noise. The feature extractor normalised the clips
            before, and also normalises those that the trained model classifies.
    """

    def __init__(self, params: Augment, labels: int, keep_level: bool) -> None:
        self.params, self.labels, self.keep_level = params, labels, keep_level

    def change(self, window: Window, partner: Window, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the changed window, float32, and its label: an id, int64 (), or shares, float32 (labels,).

        Args:
            partner: another window, for mixup; cut, or padded with zeros, to the length of the first.
        """
        params, (array, label) = self.params, window
        found = np.asarray(label)
        level = _level(array)
        if params.mixup:
            share = rng.beta(params.mixup, params.mixup)
            array = share * array + (1 - share) * _fit(partner[0], array.shape)
            found = np.zeros(self.labels)
            found[label] += share
            found[partner[1]] += 1 - share
            array, found = np.asarray(array, np.float32), found.astype(np.float32)
        if params.polarity and rng.random() < 0.5:
            array = -array
        if params.time_shift:
            most = params.time_shift * len(array)
            array = np.roll(array, round(rng.uniform(-most, most)))
        if params.gain:
            array = array * _draw_ratio(params.gain, rng)
        if params.noise:
            noise = rng.standard_normal(array.shape, dtype=np.float32)
            array = array + noise * (_level(array) / _draw_ratio(params.noise, rng))
        changed = _level(array)
        if self.keep_level and level and changed:
            array = array * (level / changed)
        return array, found


def _draw_ratio(span: list[float], rng: np.random.Generator) -> float:
    """Return a ratio of levels. span: lowest and highest, in dB."""
    return 10 ** (float(rng.uniform(span[0], span[1])) / 20)


def _level(array: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _fit(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape == shape:
        return array
    fitted = np.zeros(shape, np.float32)
    fitted[: len(array)] = array[: shape[0]]
    return fitted
