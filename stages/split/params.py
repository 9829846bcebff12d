"""The section `split` of params.yaml."""

import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from pydantic import Field, JsonValue, field_validator

from stages.common.errors import UserError, printable
from stages.common.params import Number, Section
from stages.common.user_paths import expand_path
from stages.split.methods import METHODS, explain_few

METHOD_NAMES = [*METHODS, "published"]


class SplitParams(Section):
    """How the clips are assigned to train, validation and test."""

    method: str = Field(
        "stratified",
        description="random, stratified (by label), grouped (no group in two splits) or published (a list, or that of "
        "the data set).",
        json_schema_extra={"enum": list[JsonValue](METHOD_NAMES)},
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Another seed gives another split.")
    test_size: Number = Field(0.2, gt=0, lt=1, description="Share of the clips; unused with folds or a published list.")
    validation_size: Number = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the clips; unused if a published list has validation clips. With 0, the test clips "
        "select the best epoch.",
    )
    folds: int | None = Field(None, ge=2, description="Number of cross-validation folds; replaces test_size.")
    fold: int = Field(0, ge=0, description="Index of the test fold, from 0.")
    validation_folds: int | None = Field(
        None, ge=2, description="Number of folds of the clips that are not in test; replaces validation_size."
    )
    validation_fold: int = Field(0, ge=0, description="Index of the validation fold, from 0.")
    groups: dict[str, str] = Field(
        {}, description="Group name, such as artist: CSV file with the columns clip and <group name>."
    )
    name_groups: dict[str, str] = Field(
        {}, description="Group name, such as speaker: regular expression that finds it in a clip's name, in brackets."
    )
    published: str | None = Field(
        None, description="CSV file with the columns clip and split, for method published; null: the data set's split."
    )

    @property
    def test_share(self) -> float:
        """The test clips' share of all."""
        return 1 / self.folds if self.folds else self.test_size

    @property
    def validation_share(self) -> float:
        """The validation clips' share of all."""
        return (1 - self.test_share) / self.validation_folds if self.validation_folds else self.validation_size

    def list_fold_keys(self) -> list[str]:
        """Return the keys of the folds that are used."""
        keys = ["folds", "fold"] if self.folds else []
        return keys + (["validation_folds", "validation_fold"] if self.validation_folds else [])

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in METHOD_NAMES:
            raise ValueError(f"must be {' or '.join(METHOD_NAMES)}, got {method!r}")
        return method

    @field_validator("groups", "name_groups")
    @classmethod
    def _check_groups(cls, groups: dict[str, str]) -> dict[str, str]:
        for name in groups:
            if not name.strip() or name != printable(name):
                raise ValueError(f"the group name {name!r} is empty, or has a line break or a control character")
        return groups

    @field_validator("name_groups")
    @classmethod
    def _check_patterns(cls, groups: dict[str, str]) -> dict[str, str]:
        for name, pattern in groups.items():
            try:
                with warnings.catch_warnings(action="ignore"):
                    brackets = re.compile(pattern).groups
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{name}: no regular expression: {error}") from None
            if brackets != 1:
                raise ValueError(f"{name}: needs one pair of brackets around the value, such as ^([a-z]+)_")
        return groups

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Check the keys against each other."""
        if self.method != "published" and self.test_share + self.validation_share >= 1:
            shares = f"test ({self.test_share:.3g}) and validation ({self.validation_share:.3g})"
            message = f"{shares} leave nothing to train on; set one of them lower"
            yield UserError(message, key="split.validation_size")
        else:
            yield from self._find_few_clips(sections)
        for key in ("groups", "name_groups"):
            for name in sorted({"clip", "recording"} & set(getattr(self, key))):
                yield UserError(f"{name} is reserved; rename the group and its column", key=f"split.{key}")
        for name in sorted(set(self.groups) & set(self.name_groups)):
            yield UserError(f"{name} is also in split.groups; rename one", key="split.name_groups")
        yield from self._find_fold_conflicts("folds", self.folds, "fold", self.fold)
        yield from self._find_fold_conflicts(
            "validation_folds", self.validation_folds, "validation_fold", self.validation_fold
        )
        if self.method == "published" and not self.published and not _brings_split(sections):
            yield UserError("needs a CSV file with the columns clip and split", key="split.published")

    def _find_few_clips(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Check that there is a clip of each label in each split, if the number of clips is known before download."""
        dataset = getattr(sections.get("download"), "dataset", None)
        clips, labels = getattr(dataset, "clip_counts", (0, 0))
        unchanged = dataset and not (dataset.background or dataset.corrections)
        if not unchanged or not clips or self.method != "stratified":
            return
        for key in ("folds", "validation_folds"):
            number = getattr(self, key)
            if number and number > clips // labels:
                message = f"{number}, but a label has {clips // labels} clips; set it lower, or add clips"
                yield UserError(message, key=f"split.{key}")
        if self.folds:  # these leave about this number of clips, not exactly
            return
        if problem := explain_few(self.test_size, 1, clips, labels, 1 - self.validation_share):
            yield UserError(problem, key="split.test_size")
        elif self.validation_size and not self.validation_folds:
            rest = clips - math.ceil(self.test_share * clips)
            if problem := explain_few(self.validation_size, 1 - self.test_share, rest, labels):
                yield UserError(problem, key="split.validation_size")

    def _find_fold_conflicts(self, number: str, folds: int | None, index: str, fold: int) -> Iterator[UserError]:
        """Check a number of folds and the index of one. number, index: their keys."""
        if folds and self.method not in ("stratified", "grouped"):
            message = f"needs method stratified or grouped, not {self.method}; set it to null"
            yield UserError(message, key=f"split.{number}")
        if folds and fold >= folds:
            yield UserError(f"must be below {folds}, because the folds are counted from 0", key=f"split.{index}")
        if fold and not folds:
            yield UserError(f"needs split.{number}; set {number} too", key=f"split.{index}")

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that the tables exist."""
        tables = {f"groups.{name}": path for name, path in self.groups.items()}
        if self.published and self.method == "published":
            tables["published"] = self.published
        for key, path in tables.items():
            try:
                if not expand_path(path, f"split.{key}").is_file():
                    yield UserError(f"no file {path}", key=f"split.{key}")
            except UserError as error:
                yield error


def _brings_split(sections: dict[str, Any]) -> bool:
    """Return whether the source of the clips can bring a split. sections: the valid ones of params.yaml."""
    download = sections.get("download")
    return download is None or download.dataset.source != "synthetic"
