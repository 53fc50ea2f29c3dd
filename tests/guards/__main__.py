"""`make guards`: take each guard out, in a copy of the tree, and see that one of its tests fails.

The guards and their tests stand in docs/decisions/guards-and-tests.md, how each is taken out in mutations.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from .mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "decisions" / "guards-and-tests.md"
#: Not in git, and too large or too slow to make again for each copy.
LINKED = (".venv", "web_client/node_modules")
BUILT = "backend/splitllm/_page"
#: Seconds for the tests of one guard; what hangs without its guard has failed.
PATIENCE_S = 300


def guards() -> dict[str, tuple[str, str, list[str]]]:
    """The page's table: file, symbol and tests by guard."""
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("|") and not line.startswith(("| guard", "|--")):
            guard, where, tests = (cell.strip() for cell in line.strip("|").split("|"))
            path, symbol = re.findall(r"`([^`]+)`", where)
            rows[guard] = (path, symbol, re.findall(r"`([^`]+)`", tests))
    return rows


def copy_tree(target: Path) -> None:
    """The working tree as git sees it, and what was installed and built beside it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for name in LINKED:
        (target / name).symlink_to((ROOT / name).resolve())
    shutil.copytree(ROOT / BUILT, target / BUILT)


@contextmanager
def taken_out(tree: Path, mutation: Mutation) -> Iterator[None]:
    """The tree without a guard."""
    name, guard, instead = mutation
    path = tree / name
    text = path.read_text("utf-8")
    assert text.count(guard) == 1, f"{name}: {guard!r} stands there {text.count(guard)} times"
    path.write_text(text.replace(guard, instead), "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def fails(tree: Path, tests: Sequence[str], *, page_changed: bool) -> str | None:
    """The first of the tests that fails in the tree, or None."""
    env = {**os.environ, "PYTHONPATH": f"{tree}/backend:{tree}/export", "SPLITLLM_NO_SHRINK": "1"}
    python = [name.split("::") for name in tests if ".py::" in name]
    web = [name for name in tests if ".ts::" in name]
    if page_changed and any("/e2e/" in file for file, _ in python):
        subprocess.run(["npm", "run", "--silent", "build"], cwd=tree / "web_client", check=True)
    commands = []
    if python:
        options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no", "-o", f"timeout={PATIENCE_S // 2}"]
        files, names = dict.fromkeys(file for file, _ in python), " or ".join(name for _, name in python)
        commands.append((tree, [str(tree / ".venv/bin/python"), "-m", "pytest", *options, *files, "-k", names]))
    for name in web:
        path, title = name.removeprefix("web_client/").split("::")
        pattern = re.escape(re.split("[%$]", title)[0])
        commands.append((tree / "web_client", ["npx", "vitest", "run", path, "-t", pattern]))
    for folder, command in commands:
        try:
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"no end within {PATIENCE_S} s"
        if done.returncode == 1:
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            return failed[0] if failed else f"{command[3]}::{command[-1]}"
        if done.returncode != 0:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return None


def main() -> int:
    """Every guard, or those whose words hold `--only`; 1 if a test still passes without its guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="guards whose words or files this fits")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are worked in at once")
    parser.add_argument("--out", type=Path, help="file that gets the results as JSON")
    args = parser.parse_args()
    table = guards()
    tasks = [
        (guard, mutation, table[guard][2])
        for guard, mutations in MUTATIONS.items()
        for mutation in mutations
        if re.search(args.only, guard) or re.search(args.only, mutation[0])
    ]
    with tempfile.TemporaryDirectory(prefix="splitllm-guards-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(args.jobs):
            tree = Path(folder) / str(number)
            copy_tree(tree)
            trees.put(tree)

        def attempt(task: tuple[str, Mutation, list[str]]) -> dict[str, str | None]:
            guard, mutation, tests = task
            tree = trees.get()
            try:
                with taken_out(tree, mutation):
                    failed = fails(tree, tests, page_changed=mutation[0].startswith("web_client/"))
            finally:
                trees.put(tree)
            print(
                "fails  " if failed else "PASSES ",
                guard,
                "|",
                mutation[0],
                "|",
                mutation[1].strip(),
                "|",
                failed,
                flush=True,
            )
            return {"guard": guard, "file": mutation[0], "taken_out": mutation[1], "failed": failed}

        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(attempt, tasks))
    survivors = sum(result["failed"] is None for result in results)
    print(f"{len(results) - survivors} of {len(results)} changes make a named test fail")
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
