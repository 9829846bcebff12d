"""Flipped bytes in the cache, in the workspace and in a remote, with real DVC."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import dvc, git, user_error

from tools import push, verify

pytestmark = pytest.mark.slow


def flip(file: Path) -> None:
    """Change one byte as a disk does: the mode and the times stay, so that DVC does not notice."""
    content, status = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(status.st_mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def objects(cache: Path, output: str) -> Path:
    """Return the file of the cache, or of a remote, with the content of an output."""
    for stage in yaml.safe_load(Path("dvc.lock").read_text())["stages"].values():
        for out in stage["outs"]:
            if out["path"] == output:
                return cache / "files/md5" / out["md5"][:2] / out["md5"][2:]
    raise AssertionError(output)


CACHE = Path(".dvc/cache")


def test_intact_run_has_no_damage(copied: Path) -> None:
    assert verify.verify(None, repairs=False) == []


@pytest.mark.parametrize(
    "output",
    [
        *(pytest.param(file, marks=pytest.mark.rare) for file in ("data/splits.csv", "metrics/metrics.json")),
        "data/encoded",
    ],
)
def test_damage_in_the_cache_is_named_and_repaired(output: str, copied: Path) -> None:
    damaged = objects(CACHE, output)
    flip(damaged)
    if output != "data/encoded":  # DVC checks lists of folders
        assert output not in dvc(copied, "status")
    lines = verify.verify(None, repairs=False)
    assert any(str(damaged) in line and output in line for line in lines)
    verify.verify(None, repairs=True)
    if output != "data/encoded":  # its list is not in the workspace
        assert verify.verify(None, repairs=False) == []
    dvc(copied, "repro")
    assert verify.verify(None, repairs=False) == []
    assert not git(copied, "status", "--porcelain")


@pytest.mark.rare
def test_object_damaged_in_both_is_made_again(copied: Path) -> None:
    """With links, the cache and the workspace share the file."""
    clip = next(Path("data/raw/audio").rglob("*.wav"))
    listed = yaml.safe_load(objects(CACHE, "data/raw").read_text())
    oid = next(line["md5"] for line in listed if line["relpath"] == clip.relative_to("data/raw").as_posix())
    flip(CACHE / "files/md5" / oid[:2] / oid[2:])
    flip(clip)
    lines = verify.verify(None, repairs=False)
    assert any(line.startswith(f"{(CACHE / 'files/md5' / oid[:2] / oid[2:]).resolve()}: damaged") for line in lines)
    assert len(verify.verify(None, repairs=True)) == 1
    assert not clip.exists()
    assert any(str(clip) in line for line in verify.verify(None, repairs=False))
    dvc(copied, "repro")
    assert verify.verify(None, repairs=False) == []
    assert not git(copied, "status", "--porcelain")


def test_damage_in_the_workspace_is_named(copied: Path) -> None:
    flip(Path("metrics/predictions.csv"))
    Path("data/splits.csv").unlink()
    lines = verify.verify(None, repairs=True)
    assert {"data/splits.csv: missing", "metrics/predictions.csv: differs from dvc.lock"} < set(lines)
    assert sum("dvc checkout" in line for line in lines) == sum("git checkout" in line for line in lines) == 1
    Path("metrics/predictions.csv").unlink()
    git(copied, "checkout", "metrics")
    dvc(copied, "checkout")
    assert verify.verify(None, repairs=False) == []


def test_repair_keeps_an_edit_of_the_user(copied: Path) -> None:
    splits = Path("data/splits.csv")
    splits.unlink()
    splits.write_text("mine\n")
    flip(objects(CACHE, "data/splits.csv"))
    verify.verify(None, repairs=True)
    assert splits.read_text() == "mine\n"
    assert not objects(CACHE, "data/splits.csv").exists()


def test_missing_list_of_a_folder_is_reported(copied: Path) -> None:
    """Then its files cannot be checked."""
    objects(CACHE, "data/raw").unlink()
    shutil.rmtree("data/raw/audio/blues")
    lines = verify.verify(None, repairs=False)
    assert "data/raw: missing in the cache" in lines
    assert "dvc fetch" in lines[-1]


def test_unreadable_object_counts_as_damaged(copied: Path) -> None:
    damaged = objects(CACHE, "data/splits.csv")
    damaged.unlink()
    damaged.mkdir()  # reading it fails
    (damaged / "file").touch()
    assert any("data/splits.csv" in line for line in verify.verify(None, repairs=False))


def test_damage_in_a_remote_is_named(copied: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    dvc(copied, "remote", "add", "storage", str(storage))
    dvc(copied, "push", "-r", "storage")
    assert verify.verify("storage", repairs=False) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    dvc(copied, "remote", "add", "empty", str(empty))
    [line] = verify.verify("empty", repairs=False)
    assert "files of dvc.lock are missing" in line
    damaged = objects(storage, "data/splits.csv")
    flip(damaged)
    assert verify.verify(None, repairs=False) == []
    first, _ = verify.verify("storage", repairs=False)
    assert first == f"{damaged}: damaged, it is data/splits.csv"
    damaged.unlink()
    dvc(copied, "push", "-r", "storage")
    assert verify.verify("storage", repairs=False) == []


@pytest.mark.parametrize("content", [b"{[", b"text", b"\xff\xfe\x00", b"", b"outs: 3"])
def test_damaged_record_of_the_run_cache(content: bytes, copied: Path) -> None:
    """DVC ignores it, too."""
    for record in (CACHE / "runs").rglob("*"):
        if record.is_file():
            record.chmod(0o644)
            record.write_bytes(content)
    assert verify.verify(None, repairs=False) == []


def test_repair_reports_what_is_still_missing(copied: Path) -> None:
    flip(objects(CACHE, "data/splits.csv"))
    listed = yaml.safe_load(objects(CACHE, "data/raw").read_text())[0]
    (CACHE / "files/md5" / listed["md5"][:2] / listed["md5"][2:]).unlink()
    assert f"data/raw/{listed['relpath']}: missing in the cache" in verify.verify(None, repairs=True)


def test_remote_whose_package_is_missing(copied: Path) -> None:
    dvc(copied, "remote", "add", "azure", "azure://container/folder")
    assert "dvc-azure" in str(user_error(lambda: verify.verify("azure", repairs=False)))


def test_output_of_an_earlier_run(copied: Path) -> None:
    """Only the run cache knows its path."""
    old = objects(CACHE, "metrics/metrics.json")
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(old.parent.name + old.name, "f" * 32))
    flip(old)
    assert any("metrics.json" in line for line in verify.verify(None, repairs=False))


def test_remote_that_cannot_list_its_files(copied: Path) -> None:
    dvc(copied, "remote", "add", "web", "http://127.0.0.1:9/files")
    assert user_error(lambda: verify.verify("web", repairs=False)).file == "remote web"


def test_remote_whose_folder_is_gone(copied: Path, tmp_path: Path) -> None:
    dvc(copied, "remote", "add", "gone", str(tmp_path / "gone"))
    error = user_error(lambda: verify.verify("gone", repairs=False))
    assert error.file == "remote gone"
    assert f"{tmp_path / 'gone'} does not exist" in str(error)


@pytest.mark.parametrize("content", [b"stages: [", b"stages: 3", b"[]", b"\xff", b"x: 1"])
def test_damaged_lock_is_named(copied: Path, content: bytes) -> None:
    Path("dvc.lock").write_bytes(content)
    message = str(user_error(lambda: verify.verify(None, repairs=False)))
    assert "dvc.lock" in message
    assert len(message.splitlines()) == 1


def test_password_of_a_remote_is_not_printed(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dvc(copied, "remote", "add", "web", "http://ann:hunter2@127.0.0.1:9/files")
    assert "hunter2" not in str(user_error(lambda: verify.verify("web", repairs=False)))
    assert "hunter2" not in str(user_error(lambda: push.push_runs("web")))
    assert "hunter2" not in "".join(capfd.readouterr())


def test_unknown_remote_and_missing_lock(copied: Path) -> None:
    assert "other" in str(user_error(lambda: verify.verify("other", repairs=False)))
    Path("dvc.lock").unlink()
    assert user_error(lambda: verify.verify(None, repairs=False)).file == "dvc.lock"


def test_exit_status_says_whether_there_is_damage(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["verify"])
    with pytest.raises(SystemExit) as stop:
        verify.main()
    assert not stop.value.code
    assert capsys.readouterr().out == "no damage was found\n"
    flip(objects(CACHE, "data/splits.csv"))
    with pytest.raises(SystemExit) as stop:
        verify.main()
    assert stop.value.code == 1
    assert "data/splits.csv" in capsys.readouterr().out
