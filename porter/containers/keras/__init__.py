"""Keras: HDF5 weights, presets and archives."""
