"""Orbax: trees of zarr arrays."""
