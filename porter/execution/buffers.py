"""Memory that one worker reuses from copy to copy. Fresh memory costs as much time as what is done in it."""

from __future__ import annotations

from porter.system import anonymous_memory

# Bytes. From here on memory is taken in huge pages, where the system has them.
LARGE = 4 << 20


class Buffers:
    """Buffers by purpose, each as large as the largest that was asked for; `memory` is their common limit.

    Only one buffer of a purpose may be in use at a time.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._held: dict[str, memoryview] = {}

    def take(self, purpose: str, size: int) -> memoryview:
        """A buffer of `size` bytes; what it holds is left over from its last use."""
        held = self._held.get(purpose)
        if held is None or len(held) < size:
            # The old one goes first, so that both are never there at once.
            self._held.pop(purpose, None)
            held = None
            self._held[purpose] = held = _fresh(size)
        return held[:size]


def _fresh(size: int) -> memoryview:
    return memoryview(bytearray(size)) if size < LARGE else anonymous_memory(size)
