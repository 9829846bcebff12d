"""Groups of clips that should stay in one split, because they share a recording, an artist or something else."""

import networkx
import numpy as np
import pandas as pd

from stages.common.errors import UserError


def read_clip_table(key: str, path: str, columns: list[str]) -> pd.Series:
    """Read the second column of a user's CSV file, indexed by the first, which is clip.

    Returns:
        Strings; NaN for an empty cell.

    Raises:
        UserError: the file or a column is missing, or a clip is listed twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])[columns]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8", key=f"split.{key}") from None
    except OSError:
        raise UserError(f"no file {path}", key=f"split.{key}") from None
    except (KeyError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise UserError(f"{path} needs the columns {' and '.join(columns)}", key=f"split.{key}") from None
    column = table.dropna(subset="clip").set_index("clip")[columns[1]]
    if not column.index.is_unique:
        raise UserError(f"clip {column.index[column.index.duplicated()][0]} is listed twice; keep one line", file=path)
    return column


def read_groups(groups: dict[str, str], clips: pd.Series, repetitions: pd.DataFrame) -> pd.DataFrame:
    """Read the groups of the clips.

    The group `recording` is always known: that of a clip without repetitions contains only this clip.

    Args:
        groups: group name -> CSV file with the columns clip and <group name>.
        repetitions: columns clip and recording, as `download` found them.

    Returns:
        One column of strings for each group name, one row for each clip; NaN if the group is unknown.

    Raises:
        UserError: none of the tables lists any of the clips.
    """
    repeated = clips.map(repetitions.set_index("clip")["recording"]).astype(object)
    table = pd.DataFrame({"recording": repeated.fillna("of " + clips).to_numpy()}, index=pd.Index(clips))
    for kind, path in groups.items():
        table[kind] = read_clip_table(f"groups.{kind}", path, ["clip", kind]).reindex(table.index)
    if groups and table[list(groups)].isna().all(axis=None):
        paths = ", ".join(groups.values())
        raise UserError(
            f"{paths} list none of the clips, such as {table.index[0]}; use the names of data/raw/clips.csv",
            key="split.groups",
        )
    return table


def connect(groups: pd.DataFrame) -> np.ndarray:
    """Number the connected components of clips that share any group: int64, shape (clips,)."""
    graph = networkx.Graph()
    graph.add_nodes_from(groups.index)
    for kind in groups:
        graph.add_edges_from((clip, (kind, name)) for clip, name in groups[kind].dropna().items())
    number = {node: i for i, part in enumerate(networkx.connected_components(graph)) for node in part}
    return np.array([number[clip] for clip in groups.index])
