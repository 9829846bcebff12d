"""The tabs of the page: Try, Listen and Errors."""

import shutil
from functools import partial
from pathlib import Path

import gradio as gr

from stages.common.audio import load_audio
from stages.common.errors import UserError
from stages.common.names import show_with_spaces
from stages.common.paths import REPORT
from stages.evaluate.report import find_recording, select_errors
from stages.publish.space.app import MAX_SECONDS, SOUND_RATE, show_bars, show_clip, show_message, show_timeline
from tools.classify.batches import BAD_FILE
from tools.page.answers import Answers, explain
from tools.page.data import CLIP_SECONDS, DataSet
from tools.page.server import uploads_folder

ALL = "all"
SPLITS = ["train", "validation", "test"]
NUMBER = 4  # clips in Listen
NO_DATA = "There are no clips in data/raw. Run `dvc repro`, or `dvc pull`, then start the page again."
PRIVATE = {"api_visibility": "private"}


def build_page(answers: Answers, data: DataSet, model: str) -> gr.Blocks:
    """Return the page. model: its name, to show."""
    with gr.Blocks(title="Audio classifier", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Audio classifier\n`{model}`: {', '.join(map(show_with_spaces, answers.classifier.labels[:40]))}"
        )
        with gr.Tab("Try", id="try"):
            add_try(answers, data)
        with gr.Tab("Listen", id="listen"):
            add_listen(data)
        with gr.Tab("Errors", id="errors") as tab:
            add_errors(tab, data)
    page.queue(max_size=200, default_concurrency_limit=1)
    return page


def add_try(answers: Answers, data: DataSet) -> None:
    """Add the tab that classifies a recording."""

    def upload(path: str | None) -> tuple[None, str]:
        file = Path(path or "").resolve()
        if not path or not file.is_file() or not file.is_relative_to(uploads_folder()):
            return None, show_message("The upload was lost; upload the recording again.")
        try:
            return None, answers.show(file, file.name)
        finally:
            shutil.rmtree(uploads_folder() / file.relative_to(uploads_folder()).parts[0])

    def example(number: int) -> str:
        name = examples[number]
        file, clip = data.find(name)
        return answers.show(file, name, clip["label"])

    gr.Markdown(
        f"Upload or record a sound of at most {MAX_SECONDS // 60} minutes, or choose a clip of the test split. "
        "Click on the timeline to play from there."
    )
    with gr.Row():
        recorder = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            editable=False,
            elem_id="recorder",
            min_width=320,
        )
        examples = data.list_examples()
        if examples:
            samples = _list_samples(data, examples)
    result = gr.HTML(elem_id="result")
    for event in (recorder.upload, recorder.stop_recording):
        event(upload, recorder, [recorder, result], **PRIVATE)
    if examples:
        samples.click(example, samples, result, **PRIVATE)


def _list_samples(data: DataSet, examples: list[str]) -> gr.Dataset:
    labels = data.clips["label"].to_dict()
    names = [f"{show_with_spaces(labels[name])}: {show_with_spaces(name)}" for name in examples]
    return gr.Dataset(
        components=[gr.Textbox(visible=False)],
        samples=[[name] for name in names],
        sample_labels=names,
        samples_per_page=10,
        type="index",
        min_width=320,
        label="Clips of the test split, with their labels",
        elem_id="examples",
    )


def show_recording(file: Path, title: str, note: str, bars: str = "") -> str:
    """Return a clip that is only played, at most its first CLIP_SECONDS."""
    samples = load_audio(file, SOUND_RATE, CLIP_SECONDS)
    return show_clip(title, note, samples, bars, show_timeline(samples, [], []))


def add_listen(data: DataSet) -> None:
    """Add the tab that plays random clips."""

    def listen(split: str, label: str | int) -> str:
        chosen = data.choose(None if split == ALL else split, None if label == -1 else data.labels[int(label)], NUMBER)
        if not chosen:
            return show_message("No clip has this label in this split.")
        parts = []
        for name in chosen:
            file, clip = data.find(name)
            try:
                note = ", ".join(filter(None, [show_with_spaces(name), clip["split"]]))
                parts.append(show_recording(file, show_with_spaces(clip["label"]), note))
            except BAD_FILE as error:
                parts.append(show_message(f"{name} cannot be played: {explain(error, file, name)}"))
        return f'<div class="grid">{"".join(parts)}</div>'

    if not len(data.clips):
        gr.Markdown(NO_DATA)
        return
    gr.Markdown(f"{len(data.clips)} clips with {len(data.labels)} labels.")
    with gr.Row():
        split = gr.Dropdown([ALL, *SPLITS], value=ALL, label="Split")
        labels = [(ALL, -1), *((show_with_spaces(label), i) for i, label in enumerate(data.labels))]
        label = gr.Dropdown(labels, value=-1, label="Label", elem_id="label")
        more = gr.Button(f"{NUMBER} random clips", variant="primary", elem_id="more", scale=0, min_width=200)
    clips = gr.HTML(elem_id="clips")
    for event in (more.click, split.input, label.input):
        event(listen, [split, label], clips, **PRIVATE)


def show_errors(data: DataSet) -> str:
    """Return the wrong test clips with the most probable predictions."""
    labels = [show_with_spaces(label) for label in data.predictions.columns[3:]]
    parts = []
    clips = data.clips.reset_index().set_index("clip", drop=False)
    for _, row in select_errors(data.predictions).iterrows():
        name, actual = row["clip"], show_with_spaces(row["label"])
        try:
            file = find_recording(Path("data/raw"), clips.loc[name])
            bars = show_bars(labels, row.iloc[3:].to_numpy(dtype=float), actual)
            title = f"{show_with_spaces(row['prediction'])} – wrong, the label is {actual}"
            parts.append(show_recording(file, title, show_with_spaces(name), bars))
        except (KeyError, UserError, *BAD_FILE) as error:
            parts.append(show_message(f"{name} cannot be shown: {error}"))
    return f'<div class="grid">{"".join(parts)}</div>' if parts else show_message("No test clip is wrong.")


def add_errors(tab: gr.Tab, data: DataSet) -> None:
    """Add the tab of the worst errors, which is filled when it is opened."""
    if not len(data.predictions):
        gr.Markdown(NO_DATA if not len(data.clips) else "There is no metrics/predictions.csv. Run `dvc repro`.")
        return
    wrong = int((data.predictions["label"] != data.predictions["prediction"]).sum())
    link = " The [report](/report#errors) has the confusion matrix and more." if REPORT.exists() else ""
    gr.Markdown(
        f"{wrong} of {len(data.predictions)} test clips are wrong. Below are those in which the model was most "
        f"confident; blue-grey bars are other labels, green the label, orange the prediction.{link}"
    )
    errors = gr.HTML(elem_id="worst")
    tab.select(partial(show_errors, data), None, errors, **PRIVATE)
