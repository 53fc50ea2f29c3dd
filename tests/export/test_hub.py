"""The Hugging Face Hub, played by a local server: only needed files, tokens, the cache, offline mode, refusals."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import reset_sessions

from splitllm.errors import ExportError, SplitLLMError, UsageError
from splitllm_export.exporter import export_model, plan_export

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(http.server.ThreadingHTTPServer):
    """`models` maps a name to its folder; names that begin with "gated/" want the token "secret"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Path] = {}
        self.asked: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        model = f"{owner}/{name}"
        folder = self.server.models.get(model)
        if folder is None:
            return self._refuse(404, "RepoNotFound")
        if api:
            siblings = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            info = {"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings, "private": False}
            return self._give(json.dumps(info).encode(), body=body)
        if owner == "gated" and self.headers.get("Authorization") != "Bearer secret":
            return self._refuse(403, "GatedRepo")
        path = folder / rest[-1]
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        if body:
            self.server.asked.append(path.name)
        return self._give(path.read_bytes(), body=body)

    def _give(self, data: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Hub]:
    server = _Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)  # copied there at import
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    reset_sessions()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    reset_sessions()


def test_only_what_is_needed_is_fetched_once_and_found_again_offline(
    hub: _Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "published"
    published.mkdir()
    for path in checkpoint.iterdir():
        (published / path.name).write_bytes(path.read_bytes())
    for name in ("pytorch_model.bin", "consolidated.safetensors", "README.md", "modeling_own.py", "figure.png"):
        (published / name).write_bytes(b"not needed")
    hub.models["somebody/tiny-llama"] = published
    plan = plan_export("somebody/tiny-llama", tmp_path / "out")
    assert "config.json" in hub.asked
    assert "model.safetensors" not in hub.asked
    summary = export_model("somebody/tiny-llama", tmp_path / "out", client_dtypes=())
    assert (summary.name, summary.parameters) == ("tiny-llama", plan.parameters)
    fetched = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
    assert set(hub.asked) == fetched
    assert len(hub.asked) == len(fetched)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    again = export_model("somebody/tiny-llama", tmp_path / "again", client_dtypes=())
    assert again.identity == summary.identity
    assert len(hub.asked) == len(fetched)


def test_a_gated_model_wants_a_token_and_opens_with_it(
    hub: _Hub, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["gated/model"] = make_checkpoint()
    error = _refusal(UsageError, "gated/model", tmp_path / "out")
    assert f"gated: accept its terms at {constants.ENDPOINT}/gated/model" in error.message
    assert "HF_TOKEN" in error.message
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert export_model("gated/model", tmp_path / "out", client_dtypes=()).blocks == 1


def test_models_that_are_not_there_or_only_as_pickle_are_refused(
    hub: _Hub, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "neither a folder here nor" in _refusal(UsageError, "nobody/none", tmp_path / "out").message
    model = make_checkpoint()
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    hub.models["somebody/old"] = model
    assert "stored as pickle are not read" in _refusal(ExportError, "somebody/old", tmp_path / "out").message
    assert "pytorch_model.bin" not in hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    assert "HF_HUB_OFFLINE is set" in _refusal(UsageError, "somebody/new", tmp_path / "out").message


def _refusal(kind: type[SplitLLMError], model: str, out: Path) -> SplitLLMError:
    with pytest.raises(kind) as caught:
        export_model(model, out, client_dtypes=())
    assert "\n" not in caught.value.message
    assert not out.exists()
    return caught.value
