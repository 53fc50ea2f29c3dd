"""`splitllm verify DIR`: is this folder a whole bundle, and does it compute what its model computes?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UsageError, VerificationError
from .export import figures_text, import_exporter, progress_on_stderr
from .trusted_keys import add_trusted_key, trusted_keys


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "verify",
        help="check a bundle's files, hashes and graphs, and its numbers against a model",
        description="Check a bundle: manifest, sizes, hashes, and that every graph loads with the right inputs and "
        "outputs; then run every variant at every split. With --against the numbers are compared with transformers', "
        "without it with the bundle's own float32 blocks.",
        epilog="Exit code 3 means that the bundle is not what it claims to be.",
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="bundle folder, as made by `splitllm export`")
    parser.add_argument("--against", metavar="MODEL", help="the model it was made of: a folder, or a name on the Hub")
    parser.add_argument("--files-only", action="store_true", help="check files, hashes and graphs, and run nothing")
    add_trusted_key(parser, "find the bundle in order")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with MODEL; only if you trust it"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify, print what was found; 3 if something is wrong."""
    verifier = import_exporter("verifier")
    if args.against and args.files_only:
        raise UsageError("--against compares numbers, --files-only runs none; give one of them")
    if args.against:
        import_exporter("exporter")  # so that a missing library is said before work begins
    with progress_on_stderr() as progress:
        report = verifier.verify_bundle(
            args.bundle,
            args.against,
            files_only=args.files_only,
            trusted=trusted_keys(args),
            trust_remote_code=args.trust_remote_code,
            progress=progress,
        )
    if args.json:
        print(json.dumps(report.as_json()))
    elif report.ok:
        print(f"{report.name}: {report.files} files whole, {report.graphs_loaded} graphs load")
        if report.signer is not None:
            checked = "trusted" if report.signature_trusted else "not checked; --trusted-key F does that"
            print(f"  signed with the key {report.signer[:16]}… ({checked})")
        for variant, figures in report.variants.items():
            print(f"  {figures_text(variant, figures, report.reference)}")
        if report.splits_checked:
            print(
                f"  the worst of {report.splits_run_whole} splits run to the logits; "
                f"states handed over and compared at all {report.splits_checked}"
            )
    else:
        raise VerificationError("; ".join(report.problems))
    return 0 if report.ok else VerificationError.exit_code
