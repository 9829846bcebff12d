"""Groups of clips that should stay in one split, because they share a recording, an artist or something else."""

import networkx
import numpy as np
import pandas as pd

from stages.common.clip_tables import match_table, read_clip_table
from stages.common.errors import UserError
from stages.common.paths import CLIPS


def read_groups(groups: dict[str, str], clips: pd.DataFrame, repetitions: pd.DataFrame) -> pd.DataFrame:
    """Read the groups of the clips, and print how many clips each table lacks.

    The group `recording` is always known: that of a clip without repetitions contains only this clip.

    Args:
        groups: group name -> CSV file with the columns clip and <group name>.
        clips: columns clip and label.
        repetitions: columns clip and recording, as `download` found them.

    Returns:
        One column of strings for each group name, one row for each clip; NaN if the group is unknown.

    Raises:
        UserError: the only table lists none of the clips.
    """
    labels = dict(zip(clips["clip"], clips["label"]))
    repeated = clips["clip"].map(repetitions.set_index("clip")["recording"]).astype(object)
    table = pd.DataFrame(
        {"recording": repeated.fillna("of " + clips["clip"]).to_numpy()}, index=pd.Index(clips["clip"])
    )
    for kind, path in groups.items():
        key = f"split.groups.{kind}"
        listed = read_clip_table(key, path, ["clip", kind])
        table[kind] = match_table(listed, labels, path).cells
        if table[kind].isna().all() and len(groups) == 1:
            raise UserError(
                f"{path} lists none of the clips, such as {table.index[0]}; use the names of {CLIPS}", key=key
            )
        if table[kind].isna().all():
            # Not an error: a table of repetitions has only the clips that are repeated.
            print(f"warning: {path} lists none of the clips, such as {table.index[0]}; see the names in {CLIPS}")
    return table


def find_name_groups(groups: dict[str, str], clips: pd.Series) -> pd.DataFrame:
    """Find the groups that are part of the clips' names, and print how many names lack each.

    Args:
        groups: group name -> regular expression with one pair of brackets. clips: names.

    Returns:
        One column of strings for each group name, one row for each clip; NaN if the name does not match.

    Raises:
        UserError: no name matches.
    """
    table = pd.DataFrame(index=pd.Index(clips, name="clip"))
    for kind, pattern in groups.items():
        table[kind] = clips.str.extract(pattern, expand=False).to_numpy()
        missing = table.index[table[kind].isna()]
        if len(missing) == len(clips):
            raise UserError(f"matches no clip's name, such as {clips.iloc[0]}", key=f"split.name_groups.{kind}")
        if len(missing):
            print(f"{kind}: not in the names of {len(missing)} of {len(clips)} clips, such as {missing[0]}")
    return table


def connect(groups: pd.DataFrame) -> np.ndarray:
    """Number the connected components of clips that share any group: int64, shape (clips,)."""
    graph = networkx.Graph()
    graph.add_nodes_from(groups.index)
    for kind in groups:
        graph.add_edges_from((clip, (kind, name)) for clip, name in groups[kind].dropna().items())
    number = {node: i for i, part in enumerate(networkx.connected_components(graph)) for node in part}
    return np.array([number[clip] for clip in groups.index])
