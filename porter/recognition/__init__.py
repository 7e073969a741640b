"""What is this checkpoint? Its family, dialect and sizes, and a description of it."""
