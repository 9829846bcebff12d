import pytest
from transformers import HubertConfig, PreTrainedConfig, SEWConfig, WhisperConfig

from stages.common.configs import receptive_field


@pytest.mark.parametrize(
    ("config", "samples"),
    [
        (HubertConfig(), 400),
        (HubertConfig(conv_dim=[8, 8], conv_kernel=[10, 3], conv_stride=[5, 2]), 20),
        (WhisperConfig(), 1),
        (SEWConfig(), 720),
    ],
    ids=["hubert", "two layers", "whisper", "sew"],
)
def test_receptive_field(config: PreTrainedConfig, samples: int) -> None:
    assert receptive_field(config) == samples
