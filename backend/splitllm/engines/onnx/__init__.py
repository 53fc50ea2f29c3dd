"""Engines on ONNX Runtime, on the CPU and on CUDA: the one package that imports it."""

from .blocks import Lane, OnnxBlocks
from .choice import Choice, choose
from .engine import OnnxEngine
from .runtime import resolve_device, runtime_description

__all__ = ["Choice", "Lane", "OnnxBlocks", "OnnxEngine", "choose", "resolve_device", "runtime_description"]
