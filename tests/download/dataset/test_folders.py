import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import user_error

from stages.download.dataset.folders import LINK, copy_clip, list_files


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with the labels a and b, a clip each."""
    for label in "ab":
        (tmp_path / "clips" / label).mkdir(parents=True)
        (tmp_path / "clips" / label / "1.wav").touch()
    return tmp_path / "clips"


@pytest.mark.parametrize(
    ("link", "target"),
    [("latest", "."), ("a/up", ".."), ("a/self", "."), ("c", "a"), ("a/b", "../b"), ("0", "b")],
)
def test_link_to_a_folder_of_clips_is_one_line(clips: Path, link: str, target: str) -> None:
    (clips / link).symlink_to(target)
    listing = list_files(clips)
    assert listing.files == ["a/1.wav", "b/1.wav"]
    assert [path for path, _ in listing.ignored] == [f"{link}/"]
    assert listing.ignored[0][1].startswith(LINK)
    assert not listing.rejected


def test_many_links_end(clips: Path) -> None:
    for folder in (clips, clips / "a", clips / "b"):
        for n in range(8):
            (folder / f"link{n}").symlink_to(clips)
    listing = list_files(clips)
    assert listing.files == ["a/1.wav", "b/1.wav"]
    assert len(listing.ignored) == 24


def test_links_to_labels_elsewhere(clips: Path, tmp_path: Path) -> None:
    (clips / "b").rename(tmp_path / "elsewhere")
    (clips / "b").symlink_to(tmp_path / "elsewhere")
    (clips / "c").symlink_to("loop")
    (clips / "loop").symlink_to("c")
    (clips / "gone").symlink_to(tmp_path / "nowhere")
    (clips / "empty").mkdir()
    listing = list_files(clips)
    assert listing.files == ["a/1.wav", "b/1.wav"]
    assert listing.ignored == [("empty/", "empty folder")]
    assert sorted(path for path, _ in listing.rejected) == ["c/", "gone/", "loop/"]


def test_label_linked_to_a_deep_folder(clips: Path) -> None:
    (clips / "archive/rock_v1").mkdir(parents=True)
    (clips / "archive/rock_v1/1.wav").touch()
    (clips / "rock").symlink_to("archive/rock_v1")
    assert list_files(clips).files == ["a/1.wav", "b/1.wav", "rock/1.wav"]


@pytest.fixture
def as_nobody(clips: Path) -> Iterator[Path]:
    """The folder where a user without rights can reach it, and that user for the process."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    shutil.copytree(clips, top / "clips")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield top / "clips"
    if root:
        os.seteuid(0)
    for path in [*top.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(top)


def test_what_may_not_be_read_is_named(as_nobody: Path) -> None:
    with_rights = os.geteuid() != 65534
    if not with_rights:
        os.seteuid(0)
    (as_nobody / "b").chmod(0)
    (as_nobody / "a/1.wav").chmod(0)
    if not with_rights:
        os.seteuid(65534)
    listing = list_files(as_nobody)
    assert listing.files == ["a/1.wav"]
    assert listing.rejected == [("b/", "cannot be listed: Permission denied")]
    assert copy_clip(as_nobody / "a/1.wav", as_nobody / "x") == "cannot be read: Permission denied"


def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = user_error(lambda: list_files(tmp_path / "file"))
    assert error.key == "download.dataset.path"
    assert "Not a directory" in str(error)


def test_copy(clips: Path, tmp_path: Path) -> None:
    os.mkfifo(clips / "a/pipe.wav")
    (clips / "a/gone.wav").symlink_to("nowhere.wav")
    for name in ("pipe.wav", "gone.wav"):
        assert "a broken link, or not a file" in str(copy_clip(clips / "a" / name, tmp_path / "copy.wav"))
    assert not (tmp_path / "copy.wav").exists()
    assert copy_clip(clips / "a/1.wav", tmp_path / "copy.wav") is None
