"""Tokenizer files from one dialect to another."""
