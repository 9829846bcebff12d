"""Read the split of a published list."""

import numpy as np
import pandas as pd

from stages.common.clip_tables import list_forms, match_table, read_clip_table
from stages.common.errors import UserError
from stages.common.outputs import require_files
from stages.common.paths import PUBLISHED_SPLIT
from stages.common.spelling import fold
from stages.common.tables import SPLIT_NAMES, read_table


def read_published_split(clips: pd.DataFrame, rejected: list[str], path: str) -> np.ndarray:
    """Return the split names of a published list.

    Args:
        clips: columns clip and label. rejected: paths of the files that `download` rejected.
        path: CSV file with the columns clip and split.

    Returns:
        Shape (clips,), dtype object; None for a clip that the list leaves out.

    Raises:
        UserError: a split has another name, or a clip is neither in the data set nor rejected.
    """
    if path == str(PUBLISHED_SPLIT):
        require_files(PUBLISHED_SPLIT)
        if read_table(PUBLISHED_SPLIT).empty:
            message = "the data set brings no split; name a CSV file with the columns clip and split"
            raise UserError(message, key="split.published")
    table = read_clip_table("split.published", path, ["clip", "split"]).fillna("").str.lower()
    unknown_names = sorted(set(table) - set(SPLIT_NAMES))
    if unknown_names:
        raise UserError(f"split {unknown_names[0]!r}; it must be one of {', '.join(SPLIT_NAMES)}", file=path)
    matched = match_table(table, dict(zip(clips["clip"], clips["label"])), path)
    known = {fold(form) for file in rejected for form in list_forms(file)}
    unknown = sorted(name for name in matched.others if known.isdisjoint(map(fold, list_forms(name))))
    if unknown:
        raise UserError(
            f"{len(unknown)} of its clips are not in data/raw/clips.csv (first: {unknown[0]}); use the list that "
            "belongs to this data set",
            file=path,
        )
    return matched.cells.where(matched.cells.notna(), None).to_numpy()
