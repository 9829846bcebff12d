"""The architecture of the base model, and its feature encoder: a mel filter bank with a logarithm, set by hand.

A feature encoder is too slow to learn in half an hour that loudness is perceived by its logarithm. So its convolutions
are written and stay as they are: 64 numbers for each frame of 40 ms, from which a logistic regression classifies nearly
as well as from a log-mel spectrum.

1. 32 band-pass filters, each at four phases. ReLU6 keeps the positive halves.
2. The sum of the four phases is the envelope of a band. It is amplified by three gains, and ReLU6 limits each. The sum
   of the limited copies grows with the logarithm of the envelope.
3. Means over 40 ms: the level of each band, and how much it rises from the first half to the second.

The layer norm of each convolution is made a fixed scaling by two more channels. These have large constant values of
opposite sign, which alone determine the standard deviation.
"""

import numpy as np
import torch
from transformers import HubertConfig, HubertModel

BANDS = 32
GAINS = 3
RATIO = 6.0  # between two gains
LIMIT = 6.0  # of ReLU6
LOUDEST = 0.5  # envelope that reaches the limit with the smallest gain; clips have a standard deviation of 1
LOWEST_HZ, HIGHEST_HZ = 60, 7600
SAMPLING_RATE = 16_000
KERNEL, STRIDE = 400, 80  # samples: 25 ms, every 5 ms
POOL = 8  # of these to a frame
PHASES = 4
PILOTS = 2
PILOT = 64.0  # value of the constant channels


def make_config() -> HubertConfig:
    """Return the config: 0.6 million weights, 25 frames a second."""
    return HubertConfig(
        conv_dim=[PHASES * BANDS + PILOTS, GAINS * BANDS + PILOTS, 2 * BANDS + PILOTS],
        conv_kernel=[KERNEL, 1, POOL],
        conv_stride=[STRIDE, 1, POOL],
        conv_bias=True,
        feat_extract_norm="layer",
        feat_extract_activation="relu6",
        feat_proj_layer_norm=False,
        do_stable_layer_norm=True,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        num_conv_pos_embeddings=48,  # frames: 2 s
        num_conv_pos_embedding_groups=8,
        classifier_proj_size=128,
        apply_spec_augment=False,
        layerdrop=0.0,
        hidden_dropout=0.05,
        feat_proj_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
    )


@torch.no_grad()
def write_filter_bank(model: HubertModel) -> None:
    """Set the weights of the feature encoder."""
    first, second, third = model.feature_extractor.conv_layers
    for layer in (first, second, third):
        layer.conv.weight.zero_()
    first.conv.weight[:-PILOTS, 0] = torch.from_numpy(make_band_passes()).float()
    fix_scale(first, 1.0)
    largest = RATIO ** (GAINS - 1)
    for band in range(BANDS):
        copies = slice(GAINS * band, GAINS * (band + 1))
        for gain in range(GAINS):
            # The mean of |cos| + |sin| is 1.27.
            second.conv.weight[GAINS * band + gain, PHASES * band : PHASES * (band + 1)] = 0.8 * RATIO**gain / largest
        third.conv.weight[band, copies] = 1 / GAINS / POOL
        third.conv.weight[BANDS + band, copies, : POOL // 2] = -2 / GAINS / POOL
        third.conv.weight[BANDS + band, copies, POOL // 2 :] = 2 / GAINS / POOL
    fix_scale(second, LIMIT / LOUDEST * largest)
    fix_scale(third, 1.0)
    third.layer_norm.bias[BANDS : 2 * BANDS] = LIMIT / 2  # a level can also fall


def make_band_passes() -> np.ndarray:
    """Return the band-pass filters, float64 (PHASES * BANDS, KERNEL). A sine of amplitude 1 gives one of about 1."""
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    times = (np.arange(KERNEL) - KERNEL / 2 + 0.5) / SAMPLING_RATE
    filters = []
    for low, hz, high in zip(edges, edges[1:], edges[2:], strict=False):
        length = min(KERNEL, int(4 * SAMPLING_RATE / (high - low)))  # a shorter window is a wider band
        window = np.zeros(KERNEL)
        start = (KERNEL - length) // 2
        window[start : start + length] = np.hanning(length + 2)[1:-1]
        window *= 2 / window.sum()
        for phase in range(PHASES):
            wave = window * np.cos(2 * np.pi * (hz * times + phase / PHASES))
            filters.append(wave - window * wave.sum() / window.sum())  # without a response to 0 Hz
    return np.stack(filters)


def fix_scale(layer: torch.nn.Module, scale: float) -> None:
    """Make the layer norm of a convolution a multiplication by `scale`, by two constant channels."""
    weight, bias = layer.conv.weight, layer.conv.bias
    bias.zero_()
    bias[-PILOTS:] = torch.tensor([PILOT, -PILOT])
    weight[-PILOTS:] = -weight[:-PILOTS].sum(0) / PILOTS  # so that the mean of all channels is 0
    layer.layer_norm.weight.fill_(scale * PILOT * (PILOTS / len(bias)) ** 0.5)
    layer.layer_norm.weight[-PILOTS:] = 0
    layer.layer_norm.bias.zero_()
