"""Errors that users can fix."""

from pathlib import Path


class UserError(Exception):
    """Invalid input that the user can fix. The message is one line: where, what is wrong, how to fix it.

    Attributes:
        key: of params.yaml, dotted, e.g. `train.epochs`; the message starts with it.
        file: the file or folder that is invalid; the message starts with it.
    """

    def __init__(self, message: str, *, key: str | None = None, file: Path | str | None = None) -> None:
        where = f"params.yaml: {key}: " if key else f"{file}: " if file else ""
        super().__init__(where + message)
        self.key, self.file = key, None if file is None else str(file)


class InvalidParamsError(UserError):
    """All that is wrong with params.yaml, a line each.

    Attributes:
        problems: one error for each line.
    """

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__("\nerror: ".join(map(str, problems)))
        self.problems = problems
