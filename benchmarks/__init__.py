"""Speed and memory of conversions, measured against `cp` and against LitGPT's own converter."""
