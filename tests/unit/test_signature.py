"""A bundle's signature: what is changed, missing or another's is refused, and without a key nothing is asked for."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from splitllm.cli.main import main
from splitllm.errors import BundleError, MachineError, UsageError
from splitllm.server.config import ModelSource, ServerConfig
from splitllm.server.serve import load
from splitllm.signature import SIGNATURE_NAME, check_signature, new_private_key, read_private_key, read_trusted_key

MANIFEST = "manifest.json"


def make_key(folder: Path, name: str) -> Path:
    """The private half; the public one is beside it."""
    for path, data in zip((folder / name, folder / f"{name}.pub"), new_private_key(), strict=True):
        path.write_bytes(data)
    return folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder, name) for name in ("ours", "theirs")}


@pytest.fixture
def signed(bundle: Bundle, keys: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of the demo's bundle, signed by the command."""
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    assert main(["sign", str(folder), "--key", str(keys["ours"])]) == 0
    assert "Signed" in capsys.readouterr().out
    return folder


def opened(folder: Path, *keys: Path) -> Bundle:
    return Bundle.open(folder, verify=False, trusted=[read_trusted_key(Path(f"{key}.pub")) for key in keys])


def refusal(folder: Path, *keys: Path) -> str:
    with pytest.raises(BundleError) as refused:
        opened(folder, *keys)
    assert (refused.value.code, refused.value.exit_code) == ("bundle_signature", 3)
    assert "\n" not in refused.value.message
    return refused.value.message


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_who_trusts_the_key_opens_the_bundle_and_so_does_who_asks_for_none(
    signed: Path, bundle: Bundle, keys: dict[str, Path]
) -> None:
    signer = opened(signed, keys["theirs"], keys["ours"]).signer
    assert signer == read_trusted_key(Path(f"{keys['ours']}.pub")).id
    assert opened(signed).signer == signer
    assert opened(bundle.folder).signer is None


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_one_flipped_bit_of_the_manifest_is_found(signed: Path, keys: dict[str, Path], place: float) -> None:
    """Before anything is read out of it: what it says may be what was changed."""
    flip(signed / MANIFEST, int(8 * (signed / MANIFEST).stat().st_size * place))
    assert "was changed" in refusal(signed, keys["ours"])


def test_every_flipped_bit_of_the_signature_is_found(bundle: Bundle, signed: Path, keys: dict[str, Path]) -> None:
    trusted = [read_trusted_key(Path(f"{keys['ours']}.pub"))]
    whole = (signed / SIGNATURE_NAME).read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            same = json.loads(changed) == json.loads(whole)  # white space outside its strings says nothing
        except ValueError:
            same = False
        if not same:
            with pytest.raises(BundleError, match="sign"):
                check_signature(bundle.manifest_bytes, bytes(changed), trusted)


def test_another_key_is_not_trusted(signed: Path, keys: dict[str, Path]) -> None:
    assert "not trusted" in refusal(signed, keys["theirs"])


def test_who_claims_to_be_another_is_found_out(signed: Path, keys: dict[str, Path]) -> None:
    """The id in the file is a hint only."""
    ours = read_trusted_key(Path(f"{keys['ours']}.pub")).id
    assert main(["sign", str(signed), "--key", str(keys["theirs"])]) == 0
    path = signed / SIGNATURE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": ours}))
    assert "was changed" in refusal(signed, keys["ours"])


def test_a_bundle_without_a_signature_is_refused(bundle: Bundle, keys: dict[str, Path]) -> None:
    assert f"no {SIGNATURE_NAME}" in refusal(bundle.folder, keys["ours"])


def test_the_signature_of_another_bundle_is_none_of_this(signed: Path, keys: dict[str, Path]) -> None:
    signature = (signed / SIGNATURE_NAME).read_bytes()
    manifest = json.loads((signed / MANIFEST).read_text())
    manifest["model"]["name"] = "another"
    (signed / MANIFEST).write_text(json.dumps(manifest))
    assert main(["sign", str(signed), "--key", str(keys["ours"])]) == 0
    opened(signed, keys["ours"])
    (signed / SIGNATURE_NAME).write_bytes(signature)
    assert "another bundle's" in refusal(signed, keys["ours"])


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"algorithm": "none", "key": "", "signature": ""}', "[" * 4000, "\xff", " " * 5000],
    ids=["empty", "object", "list", "null", "no algorithm", "deep", "no UTF-8", "long"],
)
def test_what_is_no_signature_is_refused(signed: Path, keys: dict[str, Path], text: str) -> None:
    (signed / SIGNATURE_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=SIGNATURE_NAME):
        opened(signed, keys["ours"])


def test_a_signature_that_is_a_link_out_of_the_bundle_is_refused(signed: Path, keys: dict[str, Path]) -> None:
    (signed / SIGNATURE_NAME).unlink()
    (signed / SIGNATURE_NAME).symlink_to(keys["ours"])
    with pytest.raises(BundleError, match="leads out"):
        opened(signed)


def test_a_server_loads_what_is_signed_and_nothing_else(
    signed: Path, bundle: Bundle, keys: dict[str, Path], tmp_path: Path
) -> None:
    trusted = (Path(f"{keys['ours']}.pub"),)
    with pytest.raises(BundleError, match=SIGNATURE_NAME):
        load([ModelSource(signed, "signed"), ModelSource(bundle.folder)], ServerConfig(trusted_keys=trusted))
    server = load([ModelSource(signed)], ServerConfig(trusted_keys=trusted, max_sessions=1))
    assert server.first.bundle.signature == (signed / SIGNATURE_NAME).read_bytes()
    server.first.runner.engine.close()


def test_verify_tells_who_signed_and_refuses_what_is_not_signed_where_a_key_is_given(
    signed: Path, bundle: Bundle, keys: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    trust = ["--trusted-key", f"{keys['ours']}.pub"]
    assert main(["verify", str(signed), "--files-only", "--json", *trust]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["signer"], told["signature_trusted"]) == (opened(signed).signer, True)
    assert main(["verify", str(bundle.folder), "--files-only", *trust]) == 3
    assert SIGNATURE_NAME in capsys.readouterr().err


def test_a_damaged_bundle_is_not_signed(signed: Path, keys: dict[str, Path]) -> None:
    before = (signed / SIGNATURE_NAME).read_bytes()
    flip(signed / "tokenizer.json", 1000)
    assert main(["sign", str(signed), "--key", str(keys["ours"])]) == 3
    assert (signed / SIGNATURE_NAME).read_bytes() == before


def test_a_new_key_is_for_its_owner_alone_and_writes_over_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "release.key"
    assert main(["sign", "--key", str(path), "--new", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    private, public = path.read_text(), Path(f"{path}.pub").read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert told["trusted_key"] == "".join(public.splitlines()[1:-1])
    assert private.splitlines()[1] not in json.dumps(told)
    assert main(["sign", "--key", str(path), "--new"]) == 2
    assert (path.read_text(), Path(f"{path}.pub").read_text()) == (private, public)
    assert main(["sign", "--key", str(path)]) == 2  # neither a bundle nor a new key


@pytest.mark.parametrize("is_there", ["release.key", "release.key.pub"])
def test_half_a_pair_of_keys_is_neither_completed_nor_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_there: str
) -> None:
    (tmp_path / is_there).write_text("kept")
    assert main(["sign", "--key", str(tmp_path / "release.key"), "--new"]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / is_there} is there already" in told
    assert "nothing was written" in told
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(is_there, "kept")]


def test_a_pair_of_keys_of_which_one_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    assert main(["sign", "--key", str(tmp_path / "release.key"), "--new"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_no_such_key_is_refused_and_not_quoted(keys: dict[str, Path], tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("secret")
    for path in (nonsense, keys["ours"], tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError) as refused:
            read_trusted_key(path)
        assert "secret" not in refused.value.message
    assert main(["sign", str(tmp_path), "--key", f"{keys['ours']}.pub"]) == 2


def test_without_the_library_it_is_named_and_nothing_is_taken_for_signed(
    signed: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MachineError, match=r"splitllm\[sign\]"):
        load([ModelSource(signed)], ServerConfig(trusted_keys=(Path(f"{keys['ours']}.pub"),)))
    assert opened(signed).signer is not None  # which is looked at without it


@pytest.mark.parametrize("kind", ["PUBLIC", "PRIVATE"])
def test_a_key_of_an_algorithm_that_nobody_knows_is_refused_as_no_key(kind: str, tmp_path: Path) -> None:
    """RFC 5280's SubjectPublicKeyInfo and RFC 5208's PrivateKeyInfo, both of the algorithm 1.2.3.4.5."""

    def der(tag: int, value: bytes) -> bytes:
        return bytes([tag, len(value)]) + value

    algorithm = der(0x30, der(0x06, bytes([0x2A, 3, 4, 5])))
    public = der(0x30, algorithm + der(0x03, bytes(33)))
    private = der(0x30, der(0x02, bytes(1)) + algorithm + der(0x04, bytes(32)))
    body = base64.b64encode(public if kind == "PUBLIC" else private).decode()
    path = tmp_path / "strange"
    path.write_text(f"-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n")
    with pytest.raises(UsageError, match=f"holds no Ed25519 {kind.lower()} key"):
        (read_trusted_key if kind == "PUBLIC" else read_private_key)(path)
