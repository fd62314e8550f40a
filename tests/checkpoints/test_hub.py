"""Loading from the hub, against a local stand-in that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub
import pytest
import torch

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """Serves the files of a few repositories the way the hub resolves them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.broken = False
        self.requests: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.respond(with_body=False)

    def do_GET(self):
        self.respond(with_body=True)

    def respond(self, with_body):
        self.server.requests.append(f"{self.command} {self.path}")
        owner, name, resolve, revision, file = unquote(self.path).strip("/").split("/", 4)
        assert resolve == "resolve"
        repo = f"{owner}/{name}"
        if self.server.broken:
            return self.refuse(500, None)
        if repo in self.server.gated and self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.refuse(403, "GatedRepo")
        if repo not in self.server.folders:
            return self.refuse(401, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        path = self.server.folders[repo] / file
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)
        return None

    def refuse(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def impatient(monkeypatch):
    """Take away the waiting between the library's attempts to reach the hub."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def model(build_hf):
    return build_hf("MobileViTForImageClassification")


@pytest.fixture
def folder(model, save_hf):
    return save_hf(model)


@pytest.fixture
def load(tmp_path):
    def load_from_hub(source, **options):
        options = {"token": False, "cache_dir": tmp_path / "cache"} | options
        return load_checkpoint(source, **options)

    return load_from_hub


def test_a_hub_model_is_downloaded_once_and_named_by_its_commit(hub, folder, model, load):
    hub.folders["me/tiny"] = folder
    checkpoint = load("me/tiny")

    expected = model.state_dict()
    assert set(checkpoint.weights) == set(expected)
    assert all(torch.equal(checkpoint.weights[name], expected[name]) for name in expected)
    assert checkpoint.image_processor.size == 72
    assert checkpoint.provenance.name == "me/tiny"
    assert checkpoint.provenance.revision == COMMIT

    weights = "/me/tiny/resolve/{}/model.safetensors"
    assert sum(r.startswith("GET") and "model.safetensors" in r for r in hub.requests) == 1
    assert f"HEAD {weights.format(COMMIT)}" in hub.requests  # not what "main" became meanwhile
    hub.requests.clear()
    load("me/tiny")
    assert not any("model.safetensors" in request for request in hub.requests)


def test_a_timm_model_is_read_from_the_hub(hub, random_timm, save_timm, load):
    hub.folders["timm/mobilevit_xxs.tiny"] = save_timm(random_timm("mobilevit_xxs"))
    checkpoint = load("timm/mobilevit_xxs.tiny")
    assert checkpoint.provenance.format == "timm"
    assert checkpoint.provenance.files == ("model.safetensors",)


def test_a_revision_is_asked_for(hub, folder, load):
    hub.folders["me/tiny"] = folder
    load("me/tiny", revision="v1")
    assert hub.requests[0] == "HEAD /me/tiny/resolve/v1/config.json"


def test_shards_and_bin_files_are_found(hub, folder, load):
    hub.folders["me/tiny"] = folder
    tensors = {"whole.bin": dict(load("me/tiny").weights)}
    (folder / "model.safetensors").unlink()
    torch.save(tensors["whole.bin"], folder / "pytorch_model-00001-of-00001.bin")
    weight_map = dict.fromkeys(tensors["whole.bin"], "pytorch_model-00001-of-00001.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hub.folders["me/sharded"] = folder
    assert load("me/sharded").provenance.files == ("pytorch_model-00001-of-00001.bin",)


def test_an_image_processor_can_be_taken_from_another_hub_model(hub, folder, load, tmp_path):
    hub.folders["me/tiny"] = folder
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "mobilevit"}')
    (other / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "MobileViTImageProcessor", "size": 99})
    )
    hub.folders["me/other"] = other
    assert load("me/tiny", image_processor="me/other").image_processor.size == 99


def test_what_is_cached_loads_offline_and_when_the_hub_is_down(hub, folder, load, impatient):
    (folder / "preprocessor_config.json").unlink()
    hub.folders["me/tiny"] = folder
    online = load("me/tiny")
    hub.requests.clear()
    offline = load("me/tiny", local_files_only=True)
    assert hub.requests == []
    assert offline.provenance == online.provenance
    assert offline.notes == online.notes
    hub.broken = True
    assert load("me/tiny").provenance == online.provenance


def refusal(load, source, **options):
    with pytest.raises(CheckpointError) as error:
        load(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_model_says_how_to_go_on(hub, load):
    assert refusal(load, "me/missing") == (
        "me/missing: no such folder here and no such model on the hub, or a private one: check "
        "the name, log in with 'hf auth login', or fetch the files elsewhere and give their folder"
    )


def test_a_gated_model_says_so_and_opens_with_a_token(hub, folder, load):
    hub.folders["me/gated"] = folder
    hub.gated.add("me/gated")
    message = refusal(load, "me/gated")
    assert message.startswith("me/gated: access is gated: accept its terms on its page")
    assert message.endswith("or fetch the files elsewhere and give their folder")
    assert load("me/gated", token=TOKEN).provenance.name == "me/gated"


def test_an_unknown_revision_is_named(hub, folder, load):
    hub.folders["me/tiny"] = folder
    message = refusal(load, "me/tiny", revision="v9")
    assert message == "me/tiny: the hub has no revision 'v9' of it"


def test_a_repository_without_configuration_is_refused(hub, folder, load):
    (folder / "config.json").unlink()
    hub.folders["me/tiny"] = folder
    assert refusal(load, "me/tiny").startswith("me/tiny: the hub has no config.json for it")


def test_a_hub_that_cannot_be_reached_says_so(hub, load, monkeypatch, impatient):
    nowhere = "http://127.0.0.1:9"  # the discard port: nothing listens
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert refusal(load, "me/tiny") == (
        "me/tiny: the hub cannot be reached: check the connection, "
        "or fetch the files elsewhere and give their folder"
    )


def test_a_model_that_is_not_cached_says_so_offline(hub, load):
    assert refusal(load, "me/tiny", local_files_only=True) == (
        "me/tiny: not in the local cache, and the hub may not be asked; load it once while "
        "online, or fetch the files elsewhere and give their folder"
    )
    assert hub.requests == []


def test_weights_that_are_not_cached_say_so_offline(hub, folder, load, tmp_path):
    hub.folders["me/tiny"] = folder
    huggingface_hub.hf_hub_download("me/tiny", "config.json", cache_dir=tmp_path / "cache")
    message = refusal(load, "me/tiny", local_files_only=True)
    assert "none of model.safetensors" in message
    assert "is in the local cache, which alone may be used" in message


def test_the_environment_names_the_hub_and_the_offline_mode(hub, folder, tmp_path):
    hub.folders["me/tiny"] = folder
    code = (
        "from mvit_coreml import load_checkpoint; "
        "print(load_checkpoint('me/tiny').provenance.revision)"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    for offline in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout.strip() == COMMIT, result.stderr
