"""Fetching what a client needs of a bundle, each file verified by its hash, and keeping it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp

from ..bundle import MANIFEST_NAME, Bundle, Manifest, manifest_from_json
from ..errors import BundleError, MachineError, SplitLLMError, UsageError
from ..signature import SIGNATURE_LIMIT, SIGNATURE_NAME, TrustedKey, check_signature
from .link import no_such_key

_CHUNK: Final = 1 << 20
_MANIFEST_LIMIT: Final = 32 << 20

Progress = Callable[[int, int], None]


class BundleSource:
    """A server's bundle, seen from a client. Files are kept in `cache`, by the bundle's identity."""

    def __init__(
        self,
        server: str,
        cache: Path,
        http: aiohttp.ClientSession,
        model: str | None = None,
        trusted: Collection[TrustedKey] = (),
    ) -> None:
        """`model`: the name that it is served under; None for the server's first.

        With `trusted` keys, one of them must have signed the bundle.
        """
        self._base = f"{server}/bundle" if model is None else f"{server}/models/{quote(model, safe='')}"
        self._model = model
        self._cache = cache
        self._http = http
        self._trusted = trusted
        self.identity = ""
        self.manifest: Manifest | None = None

    async def fetch_manifest(self) -> Manifest:
        """The manifest; its SHA-256 is the bundle's identity.

        Raises:
            UsageError: `unknown_model`.
            MachineError: the server cannot be reached or serves no bundle.
            BundleError: what it serves is no manifest, or not signed with a trusted key.
        """
        data = await self._get(MANIFEST_NAME, _MANIFEST_LIMIT)
        if self._trusted:
            check_signature(data, await self._signature(), self._trusted)
        try:
            self.manifest = manifest_from_json(json.loads(data))
        except (ValueError, RecursionError):
            raise BundleError("the server's manifest.json is not JSON; is this a SplitLLM server?") from None
        self.identity = hashlib.sha256(data).hexdigest()
        _write(self._folder / MANIFEST_NAME, data)
        return self.manifest

    async def _signature(self) -> bytes | None:
        try:
            return await self._get(SIGNATURE_NAME, SIGNATURE_LIMIT)
        except MachineError as error:
            if error.code != "not_found":
                raise
            return None

    @property
    def _folder(self) -> Path:
        return self._cache / self.identity

    def files_for(self, blocks: int, variant: str) -> list[str]:
        """Names of the files that a client of this many blocks needs, in the order of use.

        Raises:
            BundleError: `variant_unavailable`.
        """
        manifest = self._known()
        names = [manifest.tokenizer.file]
        if not blocks:
            return names
        table = manifest.embed["float32"]
        names += [table.file, table.hashes]
        for index in range(blocks):
            if variant not in manifest.blocks[index]:
                have = ", ".join(manifest.blocks[index])
                raise BundleError(f"the server has no variant {variant!r}; it has {have}", code="variant_unavailable")
            block = manifest.blocks[index][variant]
            names += [manifest.constants[name][block.activations].file for name in block.constants.values()]
            names += [name for name in (block.graph, block.weights) if name]
        return list(dict.fromkeys(names))

    async def fetch(self, names: Iterable[str], progress: Progress | None = None) -> Bundle:
        """Fetch the named files that are not kept yet, and open the bundle with just these.

        Raises:
            MachineError: the server cannot be reached, or the disk is full.
            BundleError: a file's size or hash is not the manifest's.
        """
        names = list(names)
        files = self._known().files
        missing = [name for name in names if not _is_there(self._folder / name, files[name].sha256)]
        total, done = sum(files[name].size for name in missing), 0
        for name in missing:
            data = await self._get(name, files[name].size)
            if len(data) != files[name].size or hashlib.sha256(data).hexdigest() != files[name].sha256:
                raise BundleError(
                    f"{name} arrived damaged: its SHA-256 is not the manifest's; the server's copy is broken"
                )
            _write(self._folder / name, data)
            done += len(data)
            if progress is not None:
                progress(done, total)
        return Bundle.open(self._folder, verify=False, only=names)

    def _known(self) -> Manifest:
        if self.manifest is None:
            raise ValueError("fetch_manifest comes first")
        return self.manifest

    async def _get(self, name: str, limit: int) -> bytes:
        try:
            async with self._http.get(f"{self._base}/{name}") as response:
                if response.status == 401:
                    raise no_such_key()
                if response.status == 404 and name == MANIFEST_NAME and self._model is not None:
                    raise UsageError(
                        f"the server has no model {self._model!r}; its /v1/models lists those it has",
                        code="unknown_model",
                    )
                if response.status != 200:
                    raise MachineError(
                        f"the server answers {response.status} for {name}; is {self._base} right?",
                        code="not_found" if response.status == 404 else None,
                    )
                data = bytearray()
                async for piece in response.content.iter_chunked(_CHUNK):
                    data += piece
                    if len(data) > limit:
                        raise BundleError(f"{name} is larger than the manifest says; the server's copy is broken")
                return bytes(data)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise MachineError(f"cannot reach {self._base} ({error}); is the server running there?") from None


def default_cache() -> Path:
    """Where clients keep weights unless told otherwise."""
    return Path.home() / ".cache" / "splitllm"


def _is_there(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename, so that a file is whole or absent."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise _disk_error(path, error) from None


def _disk_error(path: Path, error: OSError) -> SplitLLMError:
    return MachineError(
        f"cannot write {path} ({error.strerror}); free some space or choose another folder with --cache"
    )
