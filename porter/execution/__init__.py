"""Execution: a plan's copies, run in bounded memory and published all at once."""
