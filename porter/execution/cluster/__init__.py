"""A plan run on several machines: divided into tasks, each of which writes one part of one output file."""
