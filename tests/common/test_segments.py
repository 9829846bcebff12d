import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.common.segments import count_segments, cut_segments


@given(st.integers(1, 400), st.integers(1, 60), st.lists(st.integers(1, 99), max_size=9))
def test_segments_cover_a_recording(total: int, length: int, cuts: list[int]) -> None:
    """Whatever the chunks in which it comes."""
    samples = np.arange(total, dtype=np.float32)
    segments = list(cut_segments(np.split(samples, np.cumsum(cuts).clip(max=total)), length, length))
    assert [segment.is_last for segment in segments] == [False] * (len(segments) - 1) + [True]
    for number, segment in enumerate(segments):
        assert segment.planned == number * length
        np.testing.assert_array_equal(segment.samples, samples[segment.start : segment.start + length])
        assert len(segment.samples) == min(length, total)
    end = segments[-1].start + len(segments[-1].samples)
    assert end + segments[-1].left_out == total
    assert segments[-1].left_out == 0 or (len(segments) == 1 and total <= round(1.05 * length))
    assert count_segments(total, length) == len(segments) or 1.04 < total / length < 1.06
