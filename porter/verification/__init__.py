"""Checks beyond the proof: the live target module, and drift of the tables against installed peers."""
