"""Text for people: tables, sizes, plans."""
