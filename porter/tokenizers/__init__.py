"""Tokenizer files from one dialect to another: planned as values; nothing is executed or written."""

from porter.tokenizers.choose import tokenizer_files
from porter.tokenizers.tokenizer_values import TokenizerFile, TokenizerPlan

__all__ = ["TokenizerFile", "TokenizerPlan", "tokenizer_files"]
