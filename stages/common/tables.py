"""The pipeline's own CSV files: everything in them is text, so that a clip named 001 or a label named NA stays so."""

from pathlib import Path

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as text, empty cells as empty text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)
