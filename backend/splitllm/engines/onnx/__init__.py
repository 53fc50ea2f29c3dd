"""Engines on ONNX Runtime, on the CPU and on CUDA: the one package that imports it."""

from .blocks import Lane, OnnxBlocks
from .engine import OnnxEngine
from .runtime import resolve_device, runtime_description

__all__ = ["Lane", "OnnxBlocks", "OnnxEngine", "resolve_device", "runtime_description"]
