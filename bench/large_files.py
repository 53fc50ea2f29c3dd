"""Files of more than 2 GB from end to end: written, verified, loaded by a server, read in pieces over HTTP.

    python bench/large_files.py [--folder DIR] [--out bench/results/large_files.json]

Makes a random checkpoint of one block with Gemma 2's vocabulary of 256,000 at its hidden size of 2304, embedding and
head apart: each is a file of 2.4 GB in the bundle. Exports it, verifies it against the checkpoint, serves it, reads
chunks of the embedding by Range, one across 2^31 bytes and the last, and lets the Python client answer a question at
both splits. Everything that was made is deleted. Needs 8 GB of disk and, for the server's head, 5 GB of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from export_size import config_of, make_checkpoint, watched

from splitllm.bench.server_process import ServerProcess
from splitllm.bundle import Bundle

VOCAB, HIDDEN = 256_000, 2304
#: Files of such a size are hashed and loaded before the server answers, on a busy machine for minutes.
START_TIMEOUT_S = 600
SPLITLLM = str(Path(sys.executable).with_name("splitllm"))


def rows_by_range(url: str, bundle: Bundle) -> dict[str, bool]:
    """Whether single chunks of the embedding, fetched by Range, have the hashes that the bundle states for them."""
    entry = bundle.manifest.embed["float32"]
    size = entry.row_bytes * entry.rows_per_chunk
    hashes = bundle.path(entry.hashes).read_bytes()
    last = len(hashes) // 32 - 1
    found = {}
    for name, chunk in (("first", 0), ("across 2^31", 2**31 // size), ("last", last)):
        start, end = chunk * size, min((chunk + 1) * size, bundle.manifest.files[entry.file].size) - 1
        request = urllib.request.Request(f"{url}/bundle/{entry.file}", headers={"Range": f"bytes={start}-{end}"})  # noqa: S310  # our own server
        with urllib.request.urlopen(request) as response:  # noqa: S310  # our own server
            data = response.read()
            whole = response.status == 206 and len(data) == end - start + 1
        found[name] = whole and hashlib.sha256(data).digest() == hashes[32 * chunk : 32 * chunk + 32]
    return found


def answers(url: str) -> dict[str, str]:
    """A greedy answer at both splits, in the exact mode."""
    texts = {}
    for split in ("0", "1"):
        command = [SPLITLLM, "chat", url, "--prompt", "Hello", "--split", split, "--max-tokens", "4", "--json"]
        done = subprocess.run(  # noqa: S603  # our own command
            [*command, "--variant", "float32", "--wire", "float32"], check=True, capture_output=True, text=True
        )
        texts[split] = json.loads(done.stdout.splitlines()[-1])["text"]
    return texts


def served(folder: Path) -> dict[str, Any]:
    """What a server of the bundle takes and gives."""
    begin = time.monotonic()
    command = [SPLITLLM, "serve", str(folder), "--port", "0", "--max-sessions", "1", "--no-profile-cache"]
    server = ServerProcess(command, start_timeout_s=START_TIMEOUT_S)
    try:
        ready = time.monotonic() - begin
        ranges, texts = rows_by_range(server.url, Bundle.open(folder, verify=False)), answers(server.url)
        status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    finally:
        server.stop()
    return {
        "seconds_until_ready": round(ready),
        "peak_resident_bytes": 1024 * peak,
        "ranges": ranges,
        "same_text_at_every_split": len(set(texts.values())) == 1,
    }


def main() -> int:
    """Make, export, verify, serve, delete; 3 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a new temporary folder)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/large_files.json"))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="large-files-", dir=args.folder))
    try:
        model, bundle = work / "model", work / "bundle"
        make_checkpoint(
            model, config_of(1, vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=1024, tie_word_embeddings=False)
        )
        steps: dict[str, Any] = {}
        # A short context: what is tried here is the files, not the arithmetic.
        exporting = ["export", str(model), "--out", str(bundle), "--client-dtype", "float32", "--max-context", "32"]
        for name, command in (("export", exporting), ("verify", ["verify", str(bundle), "--against", str(model)])):
            code, text, seconds, peak = watched([SPLITLLM, *command, "--json"])
            if code:
                print(text)
                return code
            steps[name] = json.loads(text), {"seconds": round(seconds), "peak_anonymous_bytes": peak["RssAnon"]}
        sizes = {path.name: path.stat().st_size for path in bundle.iterdir()}
        server = served(bundle)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = steps["verify"][0]
    result = {
        "command": "python bench/large_files.py",
        "shape": f"one block, hidden {HIDDEN}, vocabulary {VOCAB}, bfloat16",
        "files_over_2_gb": {name: size for name, size in sorted(sizes.items()) if size > 2**31},
        "export": steps["export"][1],
        "verify": steps["verify"][1]
        | {name: report[name] for name in ("ok", "max_abs_error", "top1_agreement", "splits_checked")},
        "serve": server,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    right = report["ok"] and all(server["ranges"].values()) and server["same_text_at_every_split"]
    return 0 if right and len(result["files_over_2_gb"]) == 2 else 3  # type: ignore[arg-type]  # made above


if __name__ == "__main__":
    sys.exit(main())
