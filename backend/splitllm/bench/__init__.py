"""Measurements behind `splitllm bench`: each module measures or simulates one thing and returns plain figures."""
