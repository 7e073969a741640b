"""porter: port model weights between frameworks."""

__version__ = "0.1.0"
