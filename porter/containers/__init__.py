"""Containers: which tensors a file holds, and where."""
