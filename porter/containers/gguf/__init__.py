"""GGUF: headers, metadata and dequantised values."""
