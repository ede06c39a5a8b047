"""Weights on the Hugging Face Hub, against a hub on this machine: addresses, what is downloaded, the cache, and errors in one line."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants

from irformer import create_model, load_network
from irformer.config.compose import build_network, model_config
from irformer.errors import UserError
from irformer.weights.checkpoints import load_checkpoint, save_network, transfer_weights
from irformer.weights.hub import HubAddress, fetch_card, fetch_weights, hub_address
from irformer.weights.overrides import override_model

TINY = {"embed_dim": 8, "depths": [1], "num_heads": [2]}
COMMITS = {"main": "a" * 40, "v1": "b" * 40, "refs/pr/1": "c" * 40}


class FakeHub:
    """Files of repositories by commit, and the requests that were made."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []

    def add(self, repo: str, files: dict[str, bytes], revision: str = "main") -> None:
        self.files.setdefault(repo, {})[COMMITS[revision]] = files


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[FakeHub]:
    fake = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            fake.requests.append(f"{self.command} {path}")
            owner, name, kind, *rest = path.removeprefix("/api/models").strip("/").split("/")
            repo, place = f"{owner}/{name}", "/".join(rest)
            if repo not in fake.files:
                return self.refuse(401 if repo == "me/secret" else 404, "RepoNotFound")
            if repo in fake.gated:
                return self.refuse(403, "GatedRepo")
            commits = {**COMMITS, **{commit: commit for commit in COMMITS.values()}}
            revision = next((word for word in commits if place == word or place.startswith(f"{word}/")), None)
            if revision is None or commits[revision] not in fake.files[repo]:
                return self.refuse(404, "RevisionNotFound")
            files, file = fake.files[repo][commits[revision]], place[len(revision) :].strip("/")
            if kind == "tree":
                listed = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
                return self.send(json.dumps(listed).encode(), {"Content-Type": "application/json"}, body)
            if kind == "revision":
                described = {"id": repo, "sha": commits[revision], "siblings": [{"rfilename": name} for name in files]}
                return self.send(json.dumps(described).encode(), {"Content-Type": "application/json"}, body)
            if file not in files:
                return self.refuse(404, "EntryNotFound", commits[revision])
            etag = f'"{hash((repo, commits[revision], file)) & 0xFFFFFFFF:040x}"'
            return self.send(files[file], {"X-Repo-Commit": commits[revision], "ETag": etag}, body)

        def refuse(self, status: int, code: str, commit: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            if commit is not None:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    """A small network in irformer's format."""
    torch.manual_seed(0)
    model = override_model(model_config("swinir_tiny", "ln", 2, 3), TINY)
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_network(path, build_network(model), model, "sr_x2", 7, {})
    return path.read_bytes()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/net", HubAddress("me/net")),
        ("hf://me/net@v1", HubAddress("me/net", "v1")),
        ("hf://me/net@refs%2Fpr%2F1/x2/model.safetensors", HubAddress("me/net", "refs/pr/1", "x2/model.safetensors")),
        ("hf://me/net-1.0/a.pth", HubAddress("me/net-1.0", None, "a.pth")),
        ("runs/first", None),
        ("hf", None),
    ],
)
def test_addresses(text, address):
    assert hub_address(text) == hub_address(Path(text)) == address
    assert address is None or str(address) == text


@pytest.mark.parametrize("text", ["hf://me", "hf://me/net@", "hf:///me/net", "hf://me/net/../x", "hf://me/n t"])
def test_what_is_almost_an_address_is_refused(text):
    with pytest.raises(UserError, match=r"expected hf://OWNER/REPO\[@REVISION\]\[/FILE\]"):
        hub_address(text)


def test_a_network_is_downloaded_once_and_its_commit_is_logged(hub, weights, caplog):
    hub.add("me/net", {"README.md": b"---\nlicense: mit\n---\n", "model.safetensors": weights})
    with caplog.at_level(logging.INFO, "irformer"):
        checkpoint = load_checkpoint("hf://me/net")
    assert (checkpoint.task, checkpoint.step, checkpoint.path.name) == ("sr_x2", 7, "model.safetensors")
    assert f"hf://me/net: hf://me/net@{'a' * 40}/model.safetensors" in caplog.text
    again = load_network(Path("hf://me/net"))
    assert sum("GET" in request and "resolve" in request for request in hub.requests) == 1
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), checkpoint.network(x))
    card = fetch_card(HubAddress("me/net"))
    assert card is not None
    assert card.read_bytes().startswith(b"---\nlicense")


def test_a_revision_is_pinned(hub, weights, caplog):
    hub.add("me/net", {"model.safetensors": b"new, and not readable"})
    hub.add("me/net", {"model.safetensors": weights}, "v1")
    hub.add("me/net", {"model.safetensors": weights}, "refs/pr/1")
    for revision in ("v1", COMMITS["v1"], "refs%2Fpr%2F1"):
        assert load_checkpoint(f"hf://me/net@{revision}").step == 7
    caplog.clear()
    with caplog.at_level(logging.INFO, "irformer"):
        fetch_weights(HubAddress("me/net", COMMITS["v1"]))
    assert caplog.text == "", "a commit needs no note"
    with pytest.raises(UserError, match=r"model\.safetensors: damaged or not a safetensors file"):
        load_checkpoint("hf://me/net")


def test_without_a_file_only_safetensors_are_taken(hub, weights):
    hub.add("me/one", {"x2/net.safetensors": weights, "net.pth": b"", "README.md": b""})
    assert load_checkpoint("hf://me/one").step == 7
    hub.add("me/two", {"a.safetensors": weights, "b.safetensors": weights})
    with pytest.raises(
        UserError, match=r"hf://me/two: no model\.safetensors, .* has a\.safetensors, b\.safetensors: name one, hf://me/two/FILE"
    ):
        load_checkpoint("hf://me/two")
    assert load_checkpoint("hf://me/two/b.safetensors").step == 7
    hub.add("me/pickled", {"net.pth": b"x"})
    with pytest.raises(UserError, match=r"not exactly one other \.safetensors file; me/pickled has net\.pth: name one"):
        load_checkpoint("hf://me/pickled")
    with pytest.raises(UserError, match=r"net\.pth: "):
        load_checkpoint("hf://me/pickled/net.pth")


def test_every_error_of_the_hub_is_one_line(hub, weights, monkeypatch):
    hub.add("me/net", {"model.safetensors": weights})
    hub.add("me/gated", {"model.safetensors": weights})
    hub.gated.add("me/gated")
    cases = {
        "hf://me/none": "hf://me/none: no such repository; expected hf://OWNER/REPO",
        "hf://me/secret": "hf://me/secret: no such repository; .* if it is private",
        "hf://me/net@v9": "hf://me/net@v9: me/net has no revision v9; expected a branch, a tag or a commit",
        "hf://me/net/other.safetensors": r"no such file in me/net; expected one of model\.safetensors",
        "hf://me/gated": "hf://me/gated: access is restricted; accept its terms",
        "hf://me/net--x": "hf://me/net--x: ",
    }
    for address, line in cases.items():
        with pytest.raises(UserError, match=line) as error:
            load_network(address)
        assert "\n" not in str(error.value)


def test_what_is_in_the_cache_needs_no_hub(hub, weights, monkeypatch):
    hub.add("me/net", {"model.safetensors": weights})
    assert load_checkpoint("hf://me/net").step == 7
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its attempts
    assert load_checkpoint("hf://me/net").step == 7
    assert fetch_card(HubAddress("me/net")) is None
    with pytest.raises(UserError, match="hf://me/other: the Hub cannot be reached, and the file is not in the cache"):
        load_checkpoint("hf://me/other")


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub, which is not installed: pip install 'irformer\[hub\]'"):
        load_network("hf://me/net")


def test_training_starts_from_the_hub(hub, weights):
    hub.add("me/net", {"model.safetensors": weights})
    assert "model.safetensors" in str(transfer_weights(create_model("swinir_tiny", scale=2, overrides=TINY), Path("hf://me/net")))


def test_a_command_takes_an_address(hub, weights, tmp_path):
    """In a process of its own, which reads HF_ENDPOINT and HF_HOME as users set them."""
    hub.add("me/net", {"model.safetensors": weights})
    script = Path(__file__).parent.parent / "scripts" / "export.py"
    done = subprocess.run(
        [sys.executable, str(script), "hf://me/net@main", str(tmp_path / "out.safetensors")],
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "out.safetensors").step == 7
    assert list((tmp_path / "home").rglob("model.safetensors"))
