"""What clips can share, such as a recording or an artist, and which of them therefore belong together."""

import networkx
import numpy as np
import pandas as pd

from stages.common.stage import StageError


def look_into(key: str, path: str, columns: list[str]) -> pd.Series:
    """The second column of a person's CSV as text, indexed by the first, which is clip; NaN for an empty cell.

    Raises:
        StageError: the file or a column is missing, or a clip is listed twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])[columns]
    except UnicodeDecodeError:
        raise StageError(f"params.yaml: split.{key}: {path} is not UTF-8; save it as UTF-8") from None
    except OSError:
        raise StageError(f"params.yaml: split.{key}: no file {path}") from None
    except (KeyError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise StageError(f"params.yaml: split.{key}: {path} needs the columns {' and '.join(columns)}") from None
    table = table.dropna(subset="clip").set_index("clip")[columns[1]]
    if not table.index.is_unique:
        raise StageError(f"{path}: clip {table.index[table.index.duplicated()][0]} is listed twice; keep one line")
    return table


def read_groups(groups: dict[str, str], clips: pd.Series, repetitions: pd.DataFrame) -> pd.DataFrame:
    """What clips can share: one text column per kind, one row per clip, NaN where it is not known.

    The kind `recording` is always there, and always known: that of a clip without repetitions is its own.

    Args:
        groups: kind -> a CSV with the columns clip and that kind.
        repetitions: columns clip and recording, as `download` found them.

    Raises:
        StageError: tables of which none knows a clip, so that they would group nothing.
    """
    repeated = clips.map(repetitions.set_index("clip")["recording"])
    table = pd.DataFrame({"recording": repeated.fillna("of " + clips).to_numpy()}, index=pd.Index(clips))
    for kind, path in groups.items():
        table[kind] = look_into(f"groups.{kind}", path, ["clip", kind]).reindex(table.index)
    if groups and table[list(groups)].isna().all(axis=None):
        paths = ", ".join(groups.values())
        raise StageError(
            f"params.yaml: split.groups: {paths} know none of the clips, such as {table.index[0]}; "
            "name them as data/raw/clips.csv does"
        )
    return table


def connect(groups: pd.DataFrame) -> np.ndarray:
    """Number the groups of clips that share anything, directly or over another clip: int64, shape (clips,)."""
    graph = networkx.Graph()
    graph.add_nodes_from(groups.index)
    for kind in groups:
        graph.add_edges_from((clip, (kind, name)) for clip, name in groups[kind].dropna().items())
    number = {node: i for i, part in enumerate(networkx.connected_components(graph)) for node in part}
    return np.array([number[clip] for clip in groups.index])
