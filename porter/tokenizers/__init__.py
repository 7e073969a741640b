"""Tokenizer files from one dialect to another: `tokenizer_files` plans them, nothing is executed or written."""

from porter.tokenizers.files import TokenizerFile, TokenizerPlan
from porter.tokenizers.plan import tokenizer_files

__all__ = ["TokenizerFile", "TokenizerPlan", "tokenizer_files"]
