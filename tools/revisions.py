"""Read results of git revisions and DVC experiments without checking them out."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from stages.common.errors import UserError
from stages.common.paths import PREDICTIONS, SPLITS
from stages.common.tables import read_table


def git(*arguments: str) -> str | None:
    """Return git's output, or None on failure."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not installed; the results of experiments are stored in it") from None
    # Not as text, which would change the carriage returns of names.
    return done.stdout.decode("utf-8") if done.returncode == 0 else None


def experiments(everywhere: bool = False) -> dict[str, str]:
    """List DVC's experiments on HEAD, or on every commit, where HEAD's take precedence: name -> git commit."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            listed = repo.experiments.ls(rev="HEAD", all_commits=everywhere)
    except NotDvcRepoError:
        return {}
    head = (git("rev-parse", "HEAD") or "").strip()
    ordered = sorted(listed.items(), key=lambda item: item[0] == head)
    return {name: commit for _, some in ordered for name, commit in some}


def find(name: str) -> str:
    """Return the git commit of a revision or an experiment.

    Raises:
        UserError: there is none of that name.
    """
    commit = None if name.startswith("-") else git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    commit = commit.strip() if commit else experiments(everywhere=True).get(name)
    if commit is None:
        lists = "git log and dvc exp list --all-commits"
        raise UserError(f"{name} is not a file, git revision, experiment or workspace; see {lists}")
    return commit


def show(name: str, path: str) -> str:
    """Return the content of a project file in a revision or an experiment.

    Raises:
        UserError: there is no such revision, or it does not have the file.
    """
    # With ./ the path starts here, not at the top of the repo, of which the project may be a folder.
    text = git("show", f"{find(name)}:./{path}")
    if text is None:
        raise UserError(f"{name} does not have {path}; run the pipeline there and commit the file")
    return text


def find_file(source: str) -> Path | None:
    """Return the predictions of the workspace, or the file of that name, or None if it names something else."""
    if source == "workspace":  # as DVC calls it
        return PREDICTIONS
    return Path(source) if Path(source).is_file() else None


def read_predictions(source: str, probabilities: bool = False, path: Path = PREDICTIONS) -> pd.DataFrame:
    """Read the predictions of a file, a git revision, an experiment or `workspace`.

    Args:
        probabilities: read a column for each label, too; strings.
        path: of the predictions in a revision or an experiment.

    Returns:
        Strings label and prediction, indexed by clip.

    Raises:
        UserError: there is none, or it is not a table of predictions, or it lists a clip twice.
    """
    try:
        file = find_file(source)
        content = file.read_bytes() if file else show(source, str(path)).encode()
        table = read_table(io.BytesIO(content)).set_index("clip")
        table = table if probabilities and "prediction" in table else table[["label", "prediction"]]
    except FileNotFoundError:
        raise UserError("missing; run dvc repro", file=PREDICTIONS) from None
    except (KeyError, ValueError):
        raise UserError(f"{source}: its predictions need the columns clip, label and prediction") from None
    if not table.index.is_unique:
        raise UserError(f"{source}: clip {table.index[table.index.duplicated()][0]} is listed twice; keep one line")
    if table.empty:
        raise UserError(f"{source}: it has no clips; run dvc repro there")
    return table


def read_tracked(source: str, path: Path) -> pd.DataFrame | None:
    """Read a table that DVC tracks, of a file's workspace, a revision or an experiment.

    None if there is none, or if DVC's cache does not have it.
    """
    from dvc import api
    from dvc.exceptions import DvcException

    try:
        content = path.read_bytes() if find_file(source) else api.read(str(path), rev=find(source), mode="rb")
    except (OSError, DvcException):
        return None
    return read_table(io.BytesIO(content))


def groups_of(source: str, clips: pd.Index) -> np.ndarray | None:
    """Return the groups of clips from data/splits.csv of a file's workspace, a revision or an experiment.

    None if DVC's cache does not have it, or if it does not list all the clips.
    """
    splits = read_tracked(source, SPLITS)
    if splits is None:
        return None
    groups = splits.set_index("clip")["group"]
    return groups.reindex(clips).to_numpy() if clips.isin(groups.index).all() else None
