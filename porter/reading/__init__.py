"""How files of unknown origin are read: regular ones only, within limits, and no error without a name."""
