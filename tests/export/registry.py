"""Every family of transformers' registry of causal language models through the exporter: it passes, or is refused.

    python -m tests.export.registry [FAMILY ...]     # without names all of them, and the table in docs/exporting.md

A small model of each family is made from the defaults of its own config class, with random weights that hide nothing,
saved as a checkpoint and exported as any other. Two outcomes are right: a bundle that `verify --against` the checkpoint
finds equal at every split and a server's engine runs, or a refusal in one line that leaves nothing behind. Skipped is
what has no config to begin with: classes without defaults.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from splitllm.errors import ExportError
from splitllm_export.exporter import export_model
from splitllm_export.probe import check_family, reduced
from splitllm_export.quiet import first_line, quiet_libraries
from splitllm_export.verifier import verify_bundle

from .conftest import VOCAB, save_tokenizer
from .families import random_model
from .served import joined_error
from .table import put

#: `model_type` of every family that transformers can build a causal language model of.
REGISTRY: Final = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(CONFIG_MAPPING))
PASSED, REFUSED, SKIPPED, WRONG = "passes", "refused", "skipped", "WRONG"
BEGIN, END = "<!-- registry: python -m tests.export.registry -->\n", "<!-- end of registry -->\n"
_CONTEXT: Final = 8192
#: What a family may take before it counts as wrong.
_SECONDS, _BYTES = 600, 8 * 2**30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a family: its largest error on the logits, or the reason of the refusal."""

    family: str
    outcome: str
    max_abs_error: float | None
    reason: str


def outcome_of(family: str, folder: Path) -> Outcome:
    """Export a small model of the family inside `folder`, which is empty."""
    model, out = folder / "model", folder / "out"
    try:
        config = default_config(family)
    except Exception as error:  # whatever a class without defaults raises
        return Outcome(family, SKIPPED, None, f"{type(error).__name__}: {first_line(error)}")
    try:
        with quiet_libraries():
            if not _saved(config, model):  # then what the exporter makes of the config itself counts
                check_family(config, _CONTEXT)
                return Outcome(family, WRONG, None, "passes the exporter's own trial, but has no small model here")
        export_model(model, out, client_dtypes=("float32",))
    except ExportError as error:
        return _refused(family, folder, error.message)
    except Exception as error:  # this is what must not happen
        return Outcome(family, WRONG, None, f"{type(error).__name__}: {first_line(error)}")
    report = verify_bundle(out, model)
    if not report.ok:
        return Outcome(family, WRONG, report.max_abs_error, f"published, and {report.problems[0]}")
    try:
        difference = joined_error(out)
    except Exception as failure:
        return Outcome(family, WRONG, None, f"published, and the server's engine fails: {first_line(failure)}")
    if difference > 0:
        return Outcome(family, WRONG, difference, "published, and the server's joined blocks compute something else")
    return Outcome(family, PASSED, report.max_abs_error, "")


def default_config(family: str) -> Any:
    """The defaults of the family's config class; sizes of heads that it leaves open are those that are usual."""
    config = CONFIG_MAPPING[family]()
    if getattr(config, "num_key_value_heads", 1) is None:
        config.num_key_value_heads = config.num_attention_heads
    if getattr(config, "head_dim", 1) is None:
        config.head_dim = config.hidden_size // config.num_attention_heads
    return config


def _saved(config: Any, folder: Path) -> bool:
    """Save a small model of the config, if it has one."""
    try:
        small = reduced(config)
        small.vocab_size = VOCAB
        random_model(small).save_pretrained(folder)
    except Exception:  # a foreign class fails in its own way
        shutil.rmtree(folder, ignore_errors=True)
        return False
    save_tokenizer(folder)
    return True


def _refused(family: str, folder: Path, message: str) -> Outcome:
    left = [path.name for path in folder.iterdir() if path.name != "model"]
    if left or "\n" in message or len(message) < 20:
        return Outcome(family, WRONG, None, f"refused, but leaves {left} and says {message!r}")
    return Outcome(family, REFUSED, None, message.replace(str(folder / "model"), "the checkpoint"))


def _child(family: str, answer: Any) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
    with tempfile.TemporaryDirectory() as folder:
        answer.send(outcome_of(family, Path(folder)))


def in_a_process(family: str) -> Outcome:
    """The outcome, in a process of its own: a family that takes the whole memory or never ends is wrong, too."""
    fork = multiprocessing.get_context("fork")  # libraries are read once
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=_child, args=(family, send))
    process.start()
    send.close()
    try:
        if receive.poll(_SECONDS):
            return receive.recv()  # type: ignore[no-any-return]  # what the child sent
        process.terminate()
        return Outcome(family, WRONG, None, f"no end after {_SECONDS} s")
    except EOFError:
        return Outcome(family, WRONG, None, "the process died")
    finally:
        process.join()


def table(outcomes: list[Outcome]) -> str:
    """The page's text: how many of each, and a line for every family."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in (PASSED, REFUSED, SKIPPED, WRONG) if counts[kind])
    lines = [f"transformers {transformers.__version__}, {len(outcomes)} families: {told}.", ""]
    lines += ["| family | outcome | largest error on the logits, or the reason |", "|---|---|---|"]
    for found in outcomes:
        cell = found.reason.replace("|", "\\|") if found.max_abs_error is None else f"{found.max_abs_error:.0e}"
        lines.append(f"| `{found.family}` | {found.outcome} | {cell} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print outcomes as they come; 3 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="*", choices=[[], *REGISTRY], metavar="FAMILY")
    asked = parser.parse_args().family
    outcomes = []
    for family in asked or REGISTRY:
        begin = time.monotonic()
        outcome = in_a_process(family)
        outcomes.append(outcome)
        figure = "" if outcome.max_abs_error is None else f"{outcome.max_abs_error:.0e} "
        print(
            f"{family:24} {outcome.outcome:8} {time.monotonic() - begin:5.1f} s  {figure}{outcome.reason}", flush=True
        )
    if not asked:
        put(BEGIN, table(outcomes), END)
    return 3 if any(outcome.outcome == WRONG for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
