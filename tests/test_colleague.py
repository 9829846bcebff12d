"""The commands of docs/colleague.md, with real git, DVC and GTO: three clones, and a folder or an S3 server as remote."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from fakes.fork_server import make_dvc, make_python
from helpers import ROOT, digests, git
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

PAGE = ROOT / "docs/colleague.md"
WHO = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "a"), ("EMAIL", "a@b"))}
# Not run: the tests run in an environment that make setup has made.
SET_UP = {"make setup", "source .venv/bin/activate"}
# Params for which only publish runs, in place of those for which train runs.
QUICK = {"train.learning_rate=1e-3": "publish.name=gpu", "train.learning_rate=2e-3": "publish.name=early"}


class FolderRemote:
    """A DVC remote in a folder."""

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

    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    env |= {"NO_PROXY": "127.0.0.1"}

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


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
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
        programs = Path(tempfile.gettempdir())
        folders = [make_dvc(programs / f"dvc-{os.getpid()}"), make_python(programs / f"python-{os.getpid()}")]
        path = [*map(str, folders), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.env = os.environ | WHO | {"PATH": os.pathsep.join(path)}

    def run(self, heading: str, folder: Path, number: int = 0) -> str:
        """Run a block of the page in a folder, and return its output, both streams."""
        script = "\n".join(self.blocks.pop((heading, number)))
        for example, address in self.addresses.items():
            script = script.replace(example, address)
        return self.run_script(script, folder)

    def run_script(self, script: str, folder: Path, status: int = 0) -> str:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(["bash", "-exc", script], cwd=folder, env=self.env, text=True, **options)
        assert done.returncode == status, done.stdout
        return done.stdout


def name_in_remote(file: Path) -> str:
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return f"files/md5/{md5[:2]}/{md5[2:]}"


@pytest.mark.slow
def test_every_command_of_the_page(
    remote: FolderRemote | S3Remote, copied: Path, finished: Path, tmp_path: Path
) -> None:
    """One test, because every step needs those before it."""
    origin, mine = tmp_path / "origin.git", copied
    shutil.copytree(ROOT / "tools", mine / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    git(mine, "add", "tools")
    git(mine, "commit", "-q", "-m", "Add the tools")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(mine, "remote", "add", "origin", str(origin))
    git(mine, "push", "-q", "-u", "origin", "main")
    addresses = {"git@example.org:you/audio-finetuning.git": str(origin), "s3://bucket/folder": remote.url}
    addresses["cd audio-finetuning"] = "cd origin"
    if isinstance(remote, S3Remote):
        addresses["https://s3.example.org"] = remote.endpoint
    page = Page(addresses | QUICK)

    share_what_is_there(page, remote, mine, finished)
    get_it_elsewhere(page, remote, mine, finished, tmp_path)
    send_back(page, mine, finished, tmp_path)
    assert not page.blocks


def share_what_is_there(page: Page, remote: FolderRemote | S3Remote, mine: Path, finished: Path) -> None:
    """Make a remote and push to it, also an experiment that is older than the remote."""
    page.run_script("dvc exp run --name early --set-param publish.name=early && git checkout -q .", mine)
    page.run("Make a remote", mine)
    if isinstance(remote, S3Remote):
        page.run("S3 from another provider", mine)
    else:
        del page.blocks["S3 from another provider", 0]
    assert git(mine, "status", "--porcelain") == ""
    page.run_script("dvc exp push origin early", mine)
    assert not remote.read()
    output = page.run("Experiments without data", mine)
    assert "Running stage" not in output
    early = name_in_remote(mine / "models/published/README.md")
    now = name_in_remote(finished / "models/published/README.md")
    assert early in remote.read()
    assert now not in remote.read()
    git(mine, "checkout", ".")
    assert "runs pushed: 11" in page.run("Push", mine)
    assert now in remote.read()


def get_it_elsewhere(
    page: Page, remote: FolderRemote | S3Remote, mine: Path, finished: Path, tmp_path: Path
) -> None:
    """Get all, a part, and what was run earlier."""
    page.run_script("mkdir theirs && git clone -q origin.git part", tmp_path)
    output = page.run("Get everything", tmp_path / "theirs")
    theirs = tmp_path / "theirs/origin"
    assert output.count("didn't change, skipping") == 9
    assert "Running stage" not in output
    assert git(theirs, "status", "--porcelain") == ""
    for folder in ("data", "models", "metrics"):
        assert digests(theirs / folder) == digests(finished / folder)

    git(theirs, "pull", "-q")
    readme = (theirs / "params.yaml").read_text()
    (theirs / "params.yaml").write_text(readme.replace("name: hubert-demo", "name: early"))
    assert "Running stage" not in page.run("Get earlier runs", theirs)
    assert "early" in (theirs / "models/published/README.md").read_text()
    git(theirs, "checkout", ".")

    part = tmp_path / "part"
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
    assert len(digests(part / ".dvc/cache/files")) == len(digests(part / "models/published")) + 1


def send_back(page: Page, mine: Path, finished: Path, tmp_path: Path) -> None:
    """Send an experiment back, and get a version of the model by its tag."""
    part = tmp_path / "part"
    output = page.run("Send experiments back", part)
    assert set(re.findall(r"Running stage '(.+)'", output)) == {"check", "publish"}
    assert (part / "models/finetuned/model.safetensors").is_file()
    assert not (part / "data/raw/audio").exists()
    assert not (part / "data/encoded").exists()
    page.run("Send experiments back", mine, 1)
    assert digests(mine / "models/published") == digests(part / "models/published")
    assert digests(mine / "models/published") != digests(finished / "models/published")
    git(mine, "checkout", ".")

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
