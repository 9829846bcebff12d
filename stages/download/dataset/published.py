"""Find the split that a data set brings along: names of splits, and lists of files."""

from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.common.spelling import fold

# Names of folders, as 🤗 Datasets reads them -> names of splits.
NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# Lists of paths, as Speech Commands has them; all other clips are for training.
LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}


def name_split(text: str) -> str | None:
    """Return the split that a folder, a cell or a configuration means, or None."""
    return NAMES.get(fold(text))


def top_split(path: str) -> str | None:
    """Return the split that the first folder of a path inside a data set means, or None."""
    first, *rest = PurePosixPath(path).parts
    return name_split(first) if rest else None


def split_by_folders(paths: list[str]) -> dict[str, str]:
    """Return path -> split, if all paths are in folders of at least two splits. Else it is empty."""
    splits = {path: split for path in paths if (split := top_split(path))}
    return splits if len(splits) == len(paths) and len(set(splits.values())) > 1 else {}


def read_lists(root: Path, paths: list[str]) -> dict[str, str]:
    """Return path -> split by the lists of LISTS at the top of a data set. Without lists it is empty.

    Raises:
        UserError: a list is not UTF-8.
    """
    splits: dict[str, str] = {}
    for name, split in LISTS.items():
        if name in paths:
            try:
                lines = (root / name).read_text(encoding="utf-8").split("\n")
            except UnicodeDecodeError:
                raise UserError("it is not UTF-8; save it as UTF-8", file=root / name) from None
            splits |= dict.fromkeys((line.strip().removeprefix("./") for line in lines), split)
    return {path: splits.get(path, "train") for path in paths} if splits else {}


def summarize_splits(splits: list[str]) -> str:
    """Return the line that states the split of a data set. splits: of all its clips; "" for none."""
    numbers = ", ".join(f"{splits.count(name)} {name}" for name in dict.fromkeys(NAMES.values()))
    none = f", in no split: {splits.count('')}" if "" in splits else ""
    return f"the data set brings a split: {numbers}{none}; split.method: published uses it"
