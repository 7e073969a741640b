"""Tokenizer files from one dialect to another: planned as values; nothing is executed or written."""

from porter.tokenizers.files import TokenizerFile, TokenizerPlan
from porter.tokenizers.plan import tokenizer_files

__all__ = ["TokenizerFile", "TokenizerPlan", "tokenizer_files"]
