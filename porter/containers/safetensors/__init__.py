"""Safetensors: shards and indexes, headers read strictly and written."""
