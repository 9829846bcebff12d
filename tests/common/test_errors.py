import errno
import os
from pathlib import Path

import pytest
from helpers import user_error

from stages.common.errors import UserError, damaged, hide_credentials, reading


@pytest.mark.parametrize(
    "text",
    [
        "https://ann:hunter2@host/x",
        "cannot open 'https://ann:hunter2@host/x?y=1': refused",
        "https://ann:hunter2/@/x@host",
        "https://ann:p@hunter2@host:80",
        "https://hunter2@host/x",
        "socks5://ann:hunter2@host:1",
        "https://host/x?token=hunter2&y=1",
        "https://host/x?y=1&X-Amz-Signature=hunter2",
    ],
)
def test_credentials_are_hidden(text: str) -> None:
    assert "hunter2" not in hide_credentials(text)
    assert "hunter2" not in str(UserError(text, key=text, file=None))
    assert "host" in hide_credentials(text)


@pytest.mark.parametrize("text", ["https://host:8080/a/b?x=1", "ann@host.org", "hf://datasets/x@main", "a: b @ c"])
def test_other_text_stays(text: str) -> None:
    assert hide_credentials(text) == text


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", "a\x1b[31mb", "a\udcffb", "x" * 10**6])
def test_message_is_a_line_that_can_be_printed(text: str) -> None:
    line = str(UserError(text, file=Path("clips.csv")))
    assert len(line.splitlines()) == 1
    assert len(line.encode()) < 2000
    assert "\x1b" not in line


def test_names_are_shown_as_they_are() -> None:
    name = "Gr\xfcn  \u97f3\u697d \U0001f469\u200d\U0001f3a4"
    assert str(UserError(name)) == name


@pytest.mark.parametrize("error", [ValueError("x\ny"), KeyError("x"), TypeError(), RecursionError("x"), OSError("x")])
def test_what_libraries_raise_is_damage(error: Exception) -> None:
    file = Path("data/splits.csv")

    def read() -> None:
        with reading(file):
            raise error

    message = str(user_error(read))
    assert message.startswith("data/splits.csv: damaged: ")
    assert "dvc checkout --force data/splits.csv, or dvc repro" in message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ENOSPC])
def test_fault_of_the_machine_is_no_damage(number: int) -> None:
    with pytest.raises(OSError, match="x"), reading(Path("file")):
        raise OSError(number, "x")


def test_dvc_does_not_check_out_what_git_keeps() -> None:
    assert "dvc checkout" not in str(damaged(Path("metrics/train/plots/metrics/eval_loss.tsv"), "x"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("needs torchaudio"),
        NameError("x"),
        NotImplementedError(),
        RuntimeError("can't allocate memory"),
    ],
    ids=repr,
)
def test_faults_of_code_and_machine_are_no_damage(error: Exception) -> None:
    """To restore the file would not help, and the traceback is needed."""
    with pytest.raises(type(error)) as found, reading(Path("file")):
        raise error
    assert found.value is error


def test_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "splits.csv")
    with pytest.raises(UserError, match="a pipe or a device"), reading(tmp_path / "splits.csv"):
        (tmp_path / "splits.csv").read_text()  # it would block
