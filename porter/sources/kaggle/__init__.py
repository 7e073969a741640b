"""Kaggle's models as a source."""
