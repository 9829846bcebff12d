from pathlib import Path

import pytest

from stages.train.checkpoints import STATE, checkpoints_folder
from tools.checkpoints import main


def test_list_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, step in (("a", 7), ("b", 12)):
        folder = checkpoints_folder() / name / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / STATE).write_text("{}")
        (folder / "optimizer.pt").write_bytes(bytes(2_000_000))
    monkeypatch.setattr("sys.argv", ["checkpoints"])
    main()
    first, second = capsys.readouterr().out.splitlines()
    assert "step 7, 2 MB" in first
    assert "step 12, 2 MB" in second
    assert len(list(checkpoints_folder().iterdir())) == 2
    monkeypatch.setattr("sys.argv", ["checkpoints", "--clear"])
    main()
    assert capsys.readouterr().out.count("removed") == 2
    assert not list(checkpoints_folder().iterdir())
    main()
    assert capsys.readouterr().out == "there are no checkpoints of interrupted trainings\n"
