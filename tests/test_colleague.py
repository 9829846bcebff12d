"""The commands of docs/colleague.md, with git, DVC and GTO: three clones, and a folder or an S3 server as remote."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from helpers import ROOT, digests, find_programs, git, set_params
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

PAGE = ROOT / "docs/colleague.md"
WHO = {
    f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "a"), ("EMAIL", "a@b"))
}
# Not run: the tests run in an environment that make setup has made.
SET_UP = {"make setup", "source .venv/bin/activate"}


class FolderRemote:
    """A DVC remote in a folder."""

    endpoint = ""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder)

    def read(self) -> dict[str, bytes]:
        """Return the content of each file, by its name in the remote."""
        files = [file for file in Path(self.url).rglob("*") if file.is_file()]
        return {file.relative_to(self.url).as_posix(): file.read_bytes() for file in files}

    def write(self, name: str, content: bytes) -> None:
        file = Path(self.url, name)
        file.unlink()  # DVC's files are read-only
        file.write_bytes(content)


class S3Remote:
    """A DVC remote in a bucket of an S3 server."""

    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "*"}

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.url = endpoint, "s3://audio/folder"
        key = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        self.bucket = boto3.resource("s3", endpoint_url=endpoint, **key).Bucket("audio")
        self.bucket.create()

    def read(self) -> dict[str, bytes]:
        found = self.bucket.objects.filter(Prefix="folder/")
        return {item.key.removeprefix("folder/"): item.get()["Body"].read() for item in found}

    def write(self, name: str, content: bytes) -> None:
        self.bucket.put_object(Key=f"folder/{name}", Body=content)


Remote = FolderRemote | S3Remote


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """An empty remote, with the login in the environment."""
    if request.param == "folder":
        yield FolderRemote(tmp_path / "storage")
        return
    for name, value in S3Remote.env.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield S3Remote("http://{}:{}".format(*server.get_host_and_port()))
    server.stop()


def quick(remote: Remote) -> dict[str, str]:
    """Return params for which only publish runs, or with S3 nothing, in place of those for which train runs."""
    name = "gpu" if isinstance(remote, FolderRemote) else "early"
    return {"train.learning_rate=1e-3": f"publish.name={name}", "train.learning_rate=2e-3": "publish.name=early"}


def read_blocks() -> dict[tuple[str, int], list[str]]:
    """Return the commands of each block of the page, by the heading above it and its number below this heading."""
    blocks: dict[tuple[str, int], list[str]] = {}
    for section in re.split(r"^##+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)):
            lines = [line.partition("  #")[0].strip() for line in block.splitlines()]
            blocks[section.partition("\n")[0], number] = [line for line in lines if line not in SET_UP]
    return blocks


class Page:
    """The blocks of the page that are still to be run, with the addresses of a test in place of the examples."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.blocks = read_blocks()
        self.addresses = addresses
        self.env = os.environ | WHO | {"PATH": find_programs(os.environ["PATH"], fork=True)}

    def run(self, heading: str, folder: Path, number: int = 0) -> str:
        """Run a block of the page in a folder, and return its output, both streams."""
        script = "\n".join(self.blocks.pop((heading, number)))
        for example, address in self.addresses.items():
            script = script.replace(example, address)
        return self.run_script(script, folder)

    def skip(self, heading: str) -> None:
        del self.blocks[heading, 0]

    def run_script(self, script: str, folder: Path, status: int = 0) -> str:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(["bash", "-exc", script], cwd=folder, env=self.env, text=True, **options)
        assert done.returncode == status, done.stdout
        return done.stdout


def name_in_remote(file: Path) -> str:
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return f"files/md5/{md5[:2]}/{md5[2:]}"


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished workspace with the tools, and with an experiment that is older than the remote. Copy it."""
    folder = tmp_path_factory.mktemp("colleague") / "mine"
    shutil.copytree(finished, folder)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "add", "tools")
    git(folder, "commit", "-q", "-m", "Add the tools")
    Page({}).run_script("dvc exp run --name early --set-param publish.name=early && git checkout -q .", folder)
    return folder


@pytest.mark.rare
@pytest.mark.slow
def test_every_command_of_the_page(remote: Remote, prepared: Path, finished: Path, tmp_path: Path) -> None:
    """One test, because each step needs those before it."""
    mine, origin = tmp_path / "mine", tmp_path / "origin.git"
    shutil.copytree(prepared, mine)
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(mine, "remote", "add", "origin", str(origin))
    git(mine, "push", "-q", "-u", "origin", "main")
    addresses = {"git@example.org:you/audio-finetuning.git": str(origin), "cd audio-finetuning": "cd origin"}
    addresses |= {"s3://bucket/folder": remote.url, "https://s3.example.org": remote.endpoint}
    page = Page(addresses | quick(remote))

    make_remote(page, remote, mine, finished)
    get_everything(page, remote, tmp_path, finished)
    get_part(page, remote, tmp_path, finished)
    send_back(page, remote, tmp_path)
    register(page, mine, tmp_path, finished)
    assert not page.blocks


def make_remote(page: Page, remote: Remote, mine: Path, finished: Path) -> None:
    """Make a remote and push to it."""
    page.run("Make a remote", mine)
    if isinstance(remote, S3Remote):
        page.run("S3 from another provider", mine)
        page.skip("Experiments without data")  # the same for all remotes, and it takes seconds
    else:
        page.skip("S3 from another provider")
        push_experiment_again(page, remote, mine)
    assert git(mine, "status", "--porcelain") == ""
    model_card = name_in_remote(finished / "models/published/README.md")
    assert model_card not in remote.read()
    assert "runs pushed: 11" in page.run("Push", mine)
    assert model_card in remote.read()


def push_experiment_again(page: Page, remote: Remote, mine: Path) -> None:
    """Push an experiment that is older than the remote, and the same from a commit with the remote."""
    page.run_script("dvc exp push origin early", mine)
    assert not remote.read()
    assert "Running stage" not in page.run("Experiments without data", mine)
    assert name_in_remote(mine / "models/published/README.md") in remote.read()
    git(mine, "checkout", ".")


def get_everything(page: Page, remote: Remote, tmp_path: Path, finished: Path) -> None:
    """Get all files in a clone, and those of an earlier run."""
    (tmp_path / "theirs").mkdir()
    output = page.run("Get everything", tmp_path / "theirs")
    theirs = tmp_path / "theirs/origin"
    assert output.count("didn't change, skipping") == 9
    assert "Running stage" not in output
    assert git(theirs, "status", "--porcelain") == ""
    for folder in ("data", "models", "metrics"):
        assert digests(theirs / folder) == digests(finished / folder)
    if isinstance(remote, FolderRemote):
        page.skip("Get earlier runs")  # tests/test_pipeline.py has it with a folder
        return
    set_params(theirs, {"publish.name": "early"})
    assert "Running stage" not in page.run("Get earlier runs", theirs)
    assert "name: early" in (theirs / "models/published/README.md").read_text()


def get_part(page: Page, remote: Remote, tmp_path: Path, finished: Path) -> None:
    """Get only the model in a clone, and notice if it is damaged."""
    part = tmp_path / "part"
    git(tmp_path, "clone", "-q", "origin.git", "part")
    if isinstance(remote, FolderRemote):
        name = name_in_remote(finished / "models/published/config.json")
        content = remote.read()[name]
        remote.write(name, content[:-1] + b"X")
        page.run_script("dvc pull models/published", part, status=1)  # because of `verify true`
        remote.write(name, content)
    output = page.run("Get a part", part)
    assert output.count("didn't change, skipping") == 9
    assert "Running stage" not in output
    assert git(part, "status", "--porcelain") == ""
    assert digests(part / "models/published") == digests(finished / "models/published")
    assert len(digests(part / ".dvc/cache/files")) == len(digests(part / "models/published")) + 1  # and its list


def send_back(page: Page, remote: Remote, tmp_path: Path) -> None:
    """Send an experiment to a clone that lacks its files."""
    mine, part, theirs = tmp_path / "mine", tmp_path / "part", tmp_path / "theirs/origin"
    there, here = (part, mine) if isinstance(remote, FolderRemote) else (theirs, part)
    output = page.run("Send experiments back", there)
    if there == part:
        assert set(re.findall(r"Running stage '(.+)'", output)) == {"check", "publish"}
        assert (there / "models/finetuned/model.safetensors").is_file()
        assert not (there / "data/raw/audio").exists()
        assert not (there / "data/encoded").exists()
    before = digests(here / "models/published")
    page.run("Send experiments back", here, 1)
    assert before != digests(here / "models/published") == digests(there / "models/published")
    git(here, "checkout", ".")


def register(page: Page, mine: Path, tmp_path: Path, finished: Path) -> None:
    """Make a version of the model, and get it by its tag."""
    assert re.search(r"audio-classifier\W+v1\.0\.0", page.run("Versions of the model", mine))
    assert git(tmp_path / "origin.git", "tag") == "audio-classifier@v1.0.0\n"
    (tmp_path / "elsewhere").mkdir()
    page.run("Versions of the model", tmp_path / "elsewhere", 1)
    assert digests(tmp_path / "elsewhere/model") == digests(finished / "models/published")


def test_extras_of_the_page_are_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    extras = set(re.findall(r"--editable '\.\[(\w+)\]'", PAGE.read_text()))
    assert extras == {"s3", "gs", "ssh"}
    assert all(f"\ndvc-{extra}==" in pins for extra in extras)
