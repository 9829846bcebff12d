"""The sampling rates that all stages accept."""

MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1_000, 400_000  # Hz; soxr crashes at a rate of 1e9


def find_rate_problem(rate: object) -> str | None:
    """Return what is wrong with a sampling rate in Hz, or None."""
    if type(rate) is int and MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        return None
    return f"sampling rate is not a whole number from {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz: {rate!r:.40}"
