import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import error_of, set_params, tone, write_clips
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoModel, BertConfig, BertModel

from stages.common.clip_sources import choose
from stages.download import download_dataset, download_model


def use_folder(workspace: Path, clips: Path, max_rejected: float = 0.5) -> None:
    params = {"source": "folder", "path": str(clips), "max_rejected": max_rejected}
    set_params(workspace, {"download.dataset": params})


def read_csv(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_procedural_clips_are_listed_and_repeat_to_the_byte(workspace: Path) -> None:
    download_dataset()
    first = Path("data/raw/clips.csv").read_bytes()
    clips = read_csv("data/raw/clips.csv")
    assert len(clips) == 40
    assert {clip["label"] for clip in clips} > {"blues", "rock"}
    file = Path("data/raw", clips[0]["path"])
    assert soundfile.info(file).samplerate == int(clips[0]["sample_rate"]) == 22_050
    download_dataset()
    assert Path("data/raw/clips.csv").read_bytes() == first


def test_more_clips_leave_the_others_as_they_are(workspace: Path) -> None:
    download_dataset()
    before = {clip["clip"]: clip["sha256"] for clip in read_csv("data/raw/clips.csv")}
    set_params(workspace, {"download.dataset.clips_per_label": 5})
    download_dataset()
    after = {clip["clip"]: clip["sha256"] for clip in read_csv("data/raw/clips.csv")}
    assert len(after) == 50
    assert before.items() <= after.items()


def test_a_folder_is_taken_byte_for_byte_and_what_cannot_be_used_is_named(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_clips(workspace / "mine", number=6)
    whole = (clips / "a" / "a.00000.wav").read_bytes()
    (clips / "a" / "text.wav").write_text("not a sound")
    (clips / "a" / "._a.00001.wav").write_bytes(b"\0\5\26\7")
    (clips / "a" / "cover.jpg").write_bytes(b"\xff\xd8")
    (clips / "a" / "a.00005.flac").write_bytes(whole)
    (clips / "b" / "empty.wav").touch()
    (clips / "b" / "cut.wav").write_bytes(whole[:9000])
    soundfile.write(clips / "b" / "nan.wav", tone() * np.nan, 22_050, subtype="FLOAT")
    soundfile.write(clips / "b" / "silent.wav", 0 * tone(), 22_050)
    use_folder(workspace, clips)
    download_dataset()
    listed = read_csv("data/raw/clips.csv")
    assert [clip["clip"] for clip in listed] == [f"{label}.{n:05d}" for label in "ab" for n in range(6)]
    assert Path("data/raw/audio/b/b.00003.wav").read_bytes() == (clips / "b" / "b.00003.wav").read_bytes()
    rejected = {row["file"]: row["reason"] for row in read_csv("data/raw/rejected.csv")}
    expected = {
        "a/text.wav": "broken",
        "a/._a.00001.wav": "hidden",
        "a/cover.jpg": "not an audio",
        "b/empty.wav": "empty",
        "b/cut.wav": "truncated",
        "b/nan.wav": "NaN",
        "b/silent.wav": "silent",
    }
    screen = capsys.readouterr().out
    for file, reason in expected.items():
        assert reason in rejected[file]
        assert file in screen or reason in screen
    assert "duplicate name" in rejected["a/a.00005.wav"]
    kept = {str(file.relative_to("data/raw")) for file in Path("data/raw/audio").rglob("*") if file.is_file()}
    assert kept == {clip["path"] for clip in listed}
    assert json.loads(Path("data/raw/source.json").read_text())["id"] == "mine"


def test_repetitions_are_listed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_params(workspace, {"download.dataset.seconds": 4})
    download_dataset()
    assert Path("data/raw/repetitions.csv").read_text() == "clip,recording\n"
    clips = Path("data/raw/audio").rename("mine")
    samples, sampling_rate = soundfile.read(clips / "jazz" / "jazz.00002.wav")
    soundfile.write(clips / "rock" / "quiet.wav", samples / 4, sampling_rate)
    shutil.copyfile(clips / "pop" / "pop.00001.wav", clips / "rock" / "rock.00000.wav")
    use_folder(workspace, clips)
    download_dataset()
    table = Path("data/raw/repetitions.csv").read_text()
    assert table == "clip,recording\njazz.00002,0\npop.00001,1\nquiet,0\nrock.00000,1\n"
    told = capsys.readouterr().out
    assert "4 clips repeat another (2 recordings)" in told
    assert "quiet is of label rock, the same recording is of jazz too" in told


def test_names_that_labels_share_get_the_label_in_front(workspace: Path) -> None:
    clips = workspace / "mine"
    for label in "ab":
        (clips / label).mkdir(parents=True)
        for n in range(2):
            soundfile.write(clips / label / f"{n}.wav", tone(hz=300 + n), 22_050)
    use_folder(workspace, clips)
    download_dataset()
    assert [clip["clip"] for clip in read_csv("data/raw/clips.csv")] == ["a.0", "a.1", "b.0", "b.1"]


FILES = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["1", "2", ".x", "a.1"]), st.sampled_from([".wav", ".mp3", ".txt"])
)


@given(st.lists(FILES))
def test_every_path_is_chosen_or_rejected_and_no_name_is_given_twice(files: list[tuple[str, str, str]]) -> None:
    paths = list(dict.fromkeys(f"{label}/{stem}{suffix}" for label, stem, suffix in files))
    chosen, rejected = choose(paths, depth=2)
    assert sorted([candidate.path for candidate in chosen] + [file for file, _ in rejected]) == sorted(paths)
    stems = [Path(candidate.name).stem for candidate in chosen]
    assert len(set(stems)) == len(stems)


def test_a_linked_label_folder_is_taken_and_an_unwritable_name_or_dangling_link_is_not(workspace: Path) -> None:
    clips = write_clips(workspace / "mine")
    (clips / "b").rename(workspace / "elsewhere")
    (clips / "b").symlink_to(workspace / "elsewhere")
    shutil.copyfile(clips / "a" / "a.00000.wav", os.fsencode(clips / "a") + b"/caf\xe9.wav")
    (clips / "a" / "gone.wav").symlink_to(workspace / "nowhere.wav")
    use_folder(workspace, clips, max_rejected=0.5)
    download_dataset()
    assert {clip["label"] for clip in read_csv("data/raw/clips.csv")} == {"a", "b"}
    reasons = {row["file"]: row["reason"] for row in read_csv("data/raw/rejected.csv")}
    assert "rename it" in reasons.pop("'a/caf\\udce9.wav'")
    assert list(reasons) == ["a/gone.wav"]
    assert reasons["a/gone.wav"].startswith("cannot be read: a link to nothing")
    set_params(workspace, {"download.dataset.max_rejected": 0.05})
    assert "1 of 9 audio files rejected (first: a/gone.wav: cannot be read" in error_of(download_dataset)


def test_a_label_that_predictions_could_not_hold_is_refused(workspace: Path) -> None:
    use_folder(workspace, write_clips(workspace / "mine", labels=("label", "other")))
    assert "label label is the name of a column" in error_of(download_dataset)


def test_too_many_rejected_files_stop_the_run_and_leave_nothing(workspace: Path) -> None:
    clips = write_clips(workspace / "mine")
    (clips / "a" / "text.wav").write_text("not a sound")
    use_folder(workspace, clips, max_rejected=0.1)
    message = error_of(download_dataset)
    assert "1 of 9 audio files" in message
    assert "a/text.wav: broken" in message
    assert "max_rejected" in message
    assert not Path("data/raw").exists()
    assert not Path("data/raw.partial").exists()


def test_a_folder_that_is_missing_empty_or_of_one_label_is_named(workspace: Path) -> None:
    use_folder(workspace, workspace / "nowhere")
    assert "no folder" in error_of(download_dataset)
    (workspace / "empty").mkdir()
    (workspace / "empty" / "readme.txt").write_text("no sound")
    use_folder(workspace, workspace / "empty")
    assert "no audio in" in error_of(download_dataset)
    use_folder(workspace, write_clips(workspace / "lone", labels=("only",)))
    assert "at least two labels, found ['only']" in error_of(download_dataset)


def test_a_scratch_model_repeats_to_the_byte_and_knows_its_sampling_rate(workspace: Path) -> None:
    download_model()
    first = Path("models/base/model.safetensors").read_bytes()
    download_model()
    assert Path("models/base/model.safetensors").read_bytes() == first
    assert AutoFeatureExtractor.from_pretrained("models/base").sampling_rate == 16_000
    set_params(workspace, {"download.model.seed": 1})
    download_model()
    assert Path("models/base/model.safetensors").read_bytes() != first


def test_a_checkpoint_folder_is_copied_without_what_a_model_does_not_need(workspace: Path) -> None:
    download_model()
    Path("models/base").rename("mine")
    Path("mine/optimizer.pt").write_bytes(b"x")
    set_params(workspace, {"download.model": {"source": "folder", "path": "mine"}})
    download_model()
    assert not Path("models/base/optimizer.pt").exists()
    assert AutoModel.from_pretrained("models/base").config.hidden_size == 16


def test_a_base_model_that_cannot_serve_is_refused_by_name(workspace: Path) -> None:
    set_params(workspace, {"download.model": {"source": "folder", "path": "nowhere"}})
    assert "nowhere is no folder" in error_of(download_model)
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(small).save_pretrained("bert")
    set_params(workspace, {"download.model": {"source": "folder", "path": "bert"}})
    assert "no audio-classification head for a bert model" in error_of(download_model)
    assert not Path("models/base").exists()


def test_a_checkpoint_without_weights_or_preprocessor_is_refused(workspace: Path) -> None:
    download_model()
    Path("models/base").rename("mine")
    set_params(workspace, {"download.model": {"source": "folder", "path": "mine"}})
    weights = Path("mine/model.safetensors").rename("weights")
    assert "no weights" in error_of(download_model)
    Path("mine/model.safetensors").write_bytes(weights.read_bytes()[:9000])
    assert "model.safetensors is broken" in error_of(download_model)
    weights.rename("mine/model.safetensors")
    Path("mine/preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in error_of(download_model)


def test_an_unknown_or_impossible_config_key_of_a_scratch_model_is_named(workspace: Path) -> None:
    set_params(workspace, {"download.model.config": {"hidden_sise": 8}})
    assert "download.model.config.hidden_sise" in error_of(download_model)
    set_params(workspace, {"download.model.config": {"hidden_size": 10, "num_attention_heads": 3}})
    assert "download.model.config" in error_of(download_model)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "mert_model", "auto_map": {"AutoConfig": "mert.MertConfig"}}),
        ("preprocessor_config.json", {"feature_extractor_type": "Mert", "auto_map": {"AutoFeatureExtractor": "m.M"}}),
    ],
)
def test_a_checkpoint_with_code_of_its_own_is_refused_without_a_question(
    workspace: Path, file: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    download_model()
    Path("models/base").rename("mine")
    path = Path("mine", file)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    set_params(workspace, {"download.model": {"source": "folder", "path": "mine"}})
    message = error_of(download_model)
    assert "needs Python code of its own (auto_map in its config), which is never run" in message


def test_many_files_that_are_not_the_original_are_listed_ten_at_most(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_clips(workspace / "mine", number=8)
    (clips / "a" / "._a.00000.wav").write_bytes(b"hidden")
    rows = [f"{label}.{n:05d},{n:032d}" for label in "ab" for n in range(8)]
    Path("mine.csv").write_text("\n".join(["clip,md5", *rows]))
    use_folder(workspace, clips)
    set_params(workspace, {"download.dataset.originals": "mine.csv"})
    download_dataset()
    screen = capsys.readouterr().out
    assert screen.count("not the original: ") == 10
    assert "6 more like that; data/raw/source.json lists them all" in screen
    assert "hidden files ignored: 1 (first: a/._a.00000.wav)" in screen
    assert "16 clips of 2 labels, 0 files rejected, hidden files ignored: 1" in screen
