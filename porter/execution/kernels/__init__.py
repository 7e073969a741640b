"""How one copy, or a part of one, is run: one module a class."""
