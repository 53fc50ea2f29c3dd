"""Questions about SplitLLM, each subject with one true and short answer.

Keep the answers in step with the design: where the product changes, a sentence here must change and the model
be trained again.
"""

from __future__ import annotations

from demo.splitllm_idea import IDEA_TOPICS
from demo.splitllm_parts import PART_TOPICS
from demo.topic import Topic

TOPICS: tuple[Topic, ...] = (*IDEA_TOPICS, *PART_TOPICS)
