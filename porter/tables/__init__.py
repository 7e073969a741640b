"""Mapping tables: load, validate, extend, bind."""

from porter.tables.catalogue import Family, family_names, load_families, load_user_table, mappings_root
from porter.tables.model import Canonical, Dialect, Rule, TableError, Where

__all__ = [
    "Canonical",
    "Dialect",
    "Family",
    "Rule",
    "TableError",
    "Where",
    "family_names",
    "load_families",
    "load_user_table",
    "mappings_root",
]
