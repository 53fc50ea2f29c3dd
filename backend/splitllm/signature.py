"""Who made a bundle: an Ed25519 signature (RFC 8032) over the very bytes of `manifest.json`, in a file beside it.

The manifest names every other file with its hash, so its signature covers them all. Nothing is signed or checked unless
a key is given; this is the one importer of `cryptography`, which is there only where `splitllm[sign]` was installed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import BundleError, MachineError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME: Final = "manifest.sig"
#: Bytes that a file of a signature or of a key may have; both are a few hundred.
SIGNATURE_LIMIT: Final = 4096
_ALGORITHM: Final = "ed25519"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key. `id` is the SHA-256 of its SPKI form (RFC 8410), in hex; `path` is for people."""

    id: str
    path: Path
    public: Ed25519PublicKey


def read_trusted_key(path: Path) -> TrustedKey:
    """The public key in a file, PEM as `splitllm sign --new` and `openssl pkey -pubout` write it.

    Raises:
        UsageError: it holds no Ed25519 public key.
        MachineError: `cryptography` is missing.
    """
    serialization, ed25519, exceptions = _library()
    try:
        public = serialization.load_pem_public_key(_read(path))
    except (ValueError, exceptions.UnsupportedAlgorithm):
        public = None
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} holds no Ed25519 public key; give the .pub file that `splitllm sign --new` made")
    return TrustedKey(one_line(public)[0], path, public)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file, PEM (PKCS #8) without a password.

    Raises:
        UsageError: it holds none; the file is not quoted.
        MachineError: `cryptography` is missing.
    """
    serialization, ed25519, exceptions = _library()
    try:
        private = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):  # TypeError: it wants a password
        private = None
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} holds no Ed25519 private key without a password; make one with `splitllm sign --new`")
    key: Ed25519PrivateKey = private
    return key


def new_private_key() -> tuple[bytes, bytes]:
    """A new key: its private and its public half, both PEM.

    Raises:
        MachineError: `cryptography` is missing.
    """
    serialization, ed25519, _ = _library()
    private = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    return (
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The bytes of `manifest.sig` for these bytes of `manifest.json`."""
    value = {"algorithm": _ALGORITHM, "key": one_line(key.public_key())[0], "signature": key.sign(manifest).hex()}
    return json.dumps(value, indent=1).encode() + b"\n"


def signer_of(signature: bytes) -> str:
    """Id of the key that a signature claims to be of; nothing is checked.

    Raises:
        BundleError: `bundle_signature`, it is none.
    """
    return _parse(signature)[0]


def check_signature(manifest: bytes, signature: bytes | None, trusted: Collection[TrustedKey]) -> TrustedKey:
    """The trusted key that has signed the bytes of a manifest.

    Raises:
        BundleError: `bundle_signature`: nobody signed them, or none of the trusted keys did.
    """
    if signature is None:
        raise BundleError(
            f"the bundle holds no {SIGNATURE_NAME}, and only bundles signed with a trusted key are wanted; sign it "
            "with `splitllm sign`, or get it from who signs it",
            code="bundle_signature",
        )
    claimed, value = _parse(signature)
    key = next((each for each in trusted if each.id == claimed), None)
    if key is None:
        known = ", ".join(str(each.path) for each in trusted)
        raise BundleError(
            f"the bundle is signed with the key {claimed[:16]}…, which is not trusted ({known}); get the bundle "
            "from who holds a trusted key, or trust that key with --trusted-key",
            code="bundle_signature",
        )
    _, _, exceptions = _library()
    try:
        key.public.verify(value, manifest)
    except exceptions.InvalidSignature:
        raise BundleError(
            f"{SIGNATURE_NAME} is not {key.path}'s signature of this manifest.json: one of them was changed, or the "
            "signature is another bundle's; get both again from who signs them",
            code="bundle_signature",
        ) from None
    return key


def _parse(signature: bytes) -> tuple[str, bytes]:
    """Key id and signature."""
    try:
        value = json.loads(signature)
        algorithm, key, text = value["algorithm"], value["key"], value["signature"]
        well_formed = (
            len(value) == 3
            and algorithm == _ALGORITHM
            and re.fullmatch(r"[0-9a-f]{64}", key) is not None
            and re.fullmatch(r"[0-9a-f]{128}", text) is not None
        )
    except (ValueError, RecursionError, LookupError, TypeError):
        well_formed = False
    if not well_formed:
        raise BundleError(
            f"{SIGNATURE_NAME} is no signature that this version reads; sign the bundle again with `splitllm sign`",
            code="bundle_signature",
        )
    return key, bytes.fromhex(text)


def one_line(public: Ed25519PublicKey) -> tuple[str, str]:
    """Id of a public key, and the key itself in one line: its SPKI form in base64, which is PEM's middle."""
    serialization, _, _ = _library()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest(), base64.b64encode(spki).decode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SIGNATURE_LIMIT)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give the file of a key") from None


def _library() -> tuple[Any, Any, Any]:
    """`cryptography`, which only who asks for signatures needs."""
    try:
        import cryptography.exceptions as exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise MachineError("signatures need a library that is missing; run `pip install 'splitllm[sign]'`") from None
    return serialization, ed25519, exceptions
