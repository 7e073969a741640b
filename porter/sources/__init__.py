"""Reaching bytes: where a checkpoint lies."""
