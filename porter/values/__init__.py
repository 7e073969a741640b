"""What changes values on the way: operations that a table states, and encodings that a file holds."""
