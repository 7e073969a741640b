"""Where a plan's output goes: a directory, memory, a comparison, digests."""
