"""Files with chats, as a person would import them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import FilePayload

ROOT = Path(__file__).parents[2]
#: What unit tests of the page hold to be inert, one by one.
HOSTILE: list[str] = json.loads((ROOT / "web_client/test/page/hostile.json").read_text("utf-8"))

LONG_ANSWER = """Here is a function that reads a file **safely**:

```python
from pathlib import Path


def read_text(path: Path, limit: int = 1_000_000) -> str:
    \"\"\"Text of a file, refused when it is larger than `limit` bytes, which a person would hardly read.\"\"\"
    if path.stat().st_size > limit:
        raise ValueError(f"{path} is too large")
    return path.read_text("utf-8")
```

Three things to know:

1. It refuses what is *too large*, by [stat](https://docs.python.org/3/library/pathlib.html).
2. It reads UTF-8 and nothing else.
   - A byte order mark stays.
3. It keeps `\\r\\n` as it is.

| case | result |
|---|---:|
| small | text |
| large | `ValueError` |

> Simple is better than complex.

שלום עולם
"""


def chat(number: int, turns: list[tuple[str, str]], title: str | None = None) -> dict[str, Any]:
    """One chat of an exported file; `number` makes its ids."""
    ids = [f"{number:016x}{index + 1:016x}" for index in range(len(turns))]
    return {
        "id": f"{number:032x}",
        "title": title,
        "createdAt": number,
        "updatedAt": number,
        "leaf": ids[-1],
        "turns": [
            {
                "id": ids[index],
                "parent": ids[index - 1] if index else None,
                "createdAt": number + index,
                "question": question,
                "answer": {"status": "finished", "text": text, "finishReason": "stop", "stats": None, "sentence": None},
            }
            for index, (question, text) in enumerate(turns)
        ],
    }


def archive(*chats: dict[str, Any]) -> FilePayload:
    content = json.dumps({"format": "splitllm-chats", "version": 1, "chats": chats})
    return file(content)


def file(content: str) -> FilePayload:
    return {"name": "chats.json", "mimeType": "application/json", "buffer": content.encode()}
