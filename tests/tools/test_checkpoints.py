from pathlib import Path

import pytest

from stages.common.kept_work import open_run
from stages.download.dataset.kept_results import CHECK, FILE, RESULTS, KeptResults
from stages.resample_encode.kept_shards import SHARDS
from stages.train.checkpoints import CHECKPOINTS, STATE
from tools.checkpoints import main


def test_list_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, step in (("a", 7), ("b", 12)):
        folder = CHECKPOINTS.top() / name / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / STATE).write_text("{}")
        (folder / "optimizer.pt").write_bytes(bytes(2_000_000))
    monkeypatch.setattr("sys.argv", ["checkpoints"])
    main()
    first, second = capsys.readouterr().out.splitlines()
    assert "step 7, 2 MB" in first
    assert "step 12, 2 MB" in second
    assert len(list(CHECKPOINTS.top().iterdir())) == 2
    monkeypatch.setattr("sys.argv", ["checkpoints", "--clear"])
    main()
    assert capsys.readouterr().out.count("removed") == 2
    assert not list(CHECKPOINTS.top().iterdir())
    main()
    assert capsys.readouterr().out == "nothing is kept: no download, encoding or training was interrupted\n"


def test_list_results_of_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["checkpoints"])
    with open_run(RESULTS, {"a": 1}) as folder:
        (folder / FILE).touch()
        KeptResults(folder / FILE).compute(CHECK, lambda file: [1], Path("a.wav"), "0")
    main()
    assert f"{folder}: the check of 1 clips and the analysis of 0, 0 MB" in capsys.readouterr().out


def test_runs_in_progress_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of a second process with the same encoding."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["checkpoints", "--clear"])
    with open_run(SHARDS, {"a": 1}) as first, open_run(SHARDS, {"a": 1}) as second:
        (first / "data.arrow").touch()
        main()
        assert first.exists()
        assert second.exists()
    main()
    assert not first.exists()
