"""`splitllm verify DIR`: is this folder a whole bundle, and does it compute what its model computes?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UsageError, VerificationError
from .export import figures_text, import_exporter, progress_on_stderr


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "verify",
        help="check a bundle's files, hashes and graphs, and its numbers against a model",
        description="Check a bundle: manifest, sizes, hashes, and that every graph loads with the right inputs and "
        "outputs. With --against, run every variant at every split and compare with transformers.",
        epilog="Exit code 3 means that the bundle is not what it claims to be.",
    )
    parser.add_argument("bundle", type=Path, metavar="DIR", help="bundle folder, as made by `splitllm export`")
    parser.add_argument("--against", metavar="MODEL", help="the model it was made of: a folder, or a name on the Hub")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify, print what was found; 3 if something is wrong."""
    if not args.bundle.is_dir():
        raise UsageError(f"{args.bundle} is not a folder; give the folder that `splitllm export --out` made")
    verifier = import_exporter("verifier")
    if args.against:
        import_exporter("exporter")  # so that a missing library is said before work begins
    with progress_on_stderr() as progress:
        report = verifier.verify_bundle(args.bundle, args.against, progress=progress)
    if args.json:
        print(json.dumps(report.as_json()))
    elif report.ok:
        print(f"{report.name}: {report.files} files whole, {report.graphs_loaded} graphs load")
        for variant, figures in report.variants.items():
            print(f"  {figures_text(variant, figures)} (worst of {report.splits_checked} splits)")
    else:
        raise VerificationError("; ".join(report.problems))
    return 0 if report.ok else VerificationError.exit_code
