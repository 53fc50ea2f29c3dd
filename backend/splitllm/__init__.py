"""SplitLLM: one language model on two machines at once."""

__version__ = "0.1.0"
