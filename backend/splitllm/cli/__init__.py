"""The command line: the one reader of argv and environment."""

from .main import main

__all__ = ["main"]
