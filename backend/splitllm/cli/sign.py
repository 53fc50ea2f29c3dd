"""`splitllm sign DIR`: sign a bundle, so that servers and pages can tell whose it is."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .help_text import HelpFormatter

_DESCRIPTION = """\
Check a bundle's files and sign its manifest, which names them all with their hashes; the signature becomes the file
manifest.sig beside it. Keep the private key away from the servers: they need its public half alone, in F.pub. `splitllm
serve --trusted-key F.pub` then serves no other bundle, and a page that embeds the engine refuses one, too
(docs/embedding.md). Needs `pip install 'splitllm[sign]'`.
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sign",
        help="sign a bundle for `splitllm serve --trusted-key`",
        description=_DESCRIPTION,
        epilog="Example: splitllm sign ./bundle --key release.key --new",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "bundle", type=Path, nargs="?", metavar="DIR", help="bundle folder; with --new it may be left out"
    )
    parser.add_argument(
        "--key", type=Path, required=True, metavar="F", help="private key, Ed25519 in PEM without a password"
    )
    parser.add_argument("--new", action="store_true", help="make the key first: F, and F.pub for who shall trust it")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make a key, sign a bundle, or both.

    Raises:
        UsageError: nothing to do, or a file cannot be read or written.
        BundleError: the bundle is damaged; it is not signed.
        MachineError: `cryptography` is missing.
    """
    from ..bundle import Bundle
    from ..signature import SIGNATURE_NAME, new_private_key, one_line, read_private_key, sign

    if args.bundle is None and not args.new:
        raise UsageError("there is nothing to sign; give a bundle's folder, or --new for a new key")
    public = args.key.with_name(args.key.name + ".pub")
    if args.new:
        private_pem, public_pem = new_private_key()
        _write_new([(args.key, private_pem, 0o600), (public, public_pem, 0o644)])
    key = read_private_key(args.key)
    if args.bundle is not None:
        bundle = Bundle.open(args.bundle)
        path = bundle.folder / SIGNATURE_NAME
        beside = path.with_name(f".{SIGNATURE_NAME}.new")
        try:
            beside.write_bytes(sign(bundle.manifest_bytes, key))
            beside.replace(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}); check the folder's permissions") from None
    identity, line = one_line(key.public_key())
    if args.json:
        signed = None if args.bundle is None else str(args.bundle)
        print(json.dumps({"key": identity, "trusted_key": line, "bundle": signed, "new": args.new}))
        return 0
    if args.new:
        print(f"Made {args.key}, to be kept secret, and {public}, for `splitllm serve --trusted-key`.")
        print(f"For pages that embed the engine: trustedKey: '{line}'")
    if args.bundle is not None:
        print(f"Signed {args.bundle} with the key {identity[:16]}…")
    return 0


def _write_new(files: Iterable[tuple[Path, bytes, int]]) -> None:
    """Write files, as (path, data, mode), all or none: half a pair is no key, and one that is written over is lost.

    Raises:
        UsageError: one is there already, or cannot be written.
    """
    with contextlib.ExitStack() as undo:
        for path, data, mode in files:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                undo.callback(path.unlink)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
            except FileExistsError:
                raise UsageError(
                    f"{path} is there already, and nothing was written; leave --new out to sign with that key, or name "
                    "another file"
                ) from None
            except OSError as error:
                raise UsageError(f"{path} cannot be written ({error.strerror}); name another file") from None
        undo.pop_all()
