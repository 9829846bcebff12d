"""Read the split of a published list."""

import numpy as np
import pandas as pd

from stages.common.errors import UserError
from stages.common.tables import SPLIT_NAMES
from stages.split.groups import read_clip_table


def read_published_split(clips: pd.DataFrame, rejected: set[str], path: str) -> np.ndarray:
    """Return the split names of a published list.

    Args:
        clips: with the column clip. rejected: clips whose files `download` rejected.
        path: CSV file with the columns clip and split.

    Returns:
        Shape (clips,), dtype object; None for a clip that the list leaves out.

    Raises:
        UserError: a split has another name, or a clip is neither in the data set nor rejected.
    """
    table = read_clip_table("published", path, ["clip", "split"])
    unknown_names = sorted(set(table.fillna("")) - set(SPLIT_NAMES))
    if unknown_names:
        raise UserError(f"split {unknown_names[0]!r}; it must be one of {', '.join(SPLIT_NAMES)}", file=path)
    unknown = sorted(set(table.index) - set(clips["clip"]) - rejected)
    if unknown:
        raise UserError(
            f"{len(unknown)} of its clips are not in data/raw/clips.csv (first: {unknown[0]}); use the list that "
            "belongs to this data set",
            file=path,
        )
    return clips["clip"].map(table).astype(object).where(lambda split: split.notna(), None).to_numpy()
