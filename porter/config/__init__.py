"""Hyperparameters from one dialect to another, through the canonical ones."""
