"""torch zip checkpoints: read by a restricted reader of tensor records, and written, without torch."""
