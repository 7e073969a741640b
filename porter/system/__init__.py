"""What differs between operating systems, each with a plain fallback; docs/systems.md says what is where.

Nothing else in porter calls the system by another way than Python's portable functions. Whether a call exists
is asked when it is needed, so that one process can be made to look like another system.
"""

from porter.system.blocks import clone_range, reserve
from porter.system.durability import start_writeback, sync_data, sync_directory, sync_file
from porter.system.files import advise, duplicate, exchange, read_into, try_lock, write_from
from porter.system.memory import anonymous_memory, forget

__all__ = [
    "advise",
    "anonymous_memory",
    "clone_range",
    "duplicate",
    "exchange",
    "forget",
    "read_into",
    "reserve",
    "start_writeback",
    "sync_data",
    "sync_directory",
    "sync_file",
    "try_lock",
    "write_from",
]
