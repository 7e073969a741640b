"""The last net: what is raised while a stranger's input is read is never a traceback.

Every reader refuses what it cannot take by its own words. What slips through all the same (an error of
Python's own, from a value that nobody thought of) becomes exit 6 with the input named. It is a fault of
porter's to be reported, and tests count it as one: an `UnforeseenError` is a failed test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from porter.errors import MalformedError, PorterError, UnforeseenError
from porter.reading.regular import unreadable
from porter.untrusted import shortened
from porter.wording import at_command_line, flag

# UnicodeError, which is a ValueError, among them.
_CAUGHT = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


@contextmanager
def reading(name: object) -> Iterator[None]:
    """While `name` is read: errors of Python's own become an UnforeseenError that names it."""
    try:
        yield
    except PorterError:
        raise
    except MemoryError:
        raise MalformedError(
            f"{shortened(str(name))} asks for more memory than there is", hint="is it what its name says?"
        ) from None
    except OSError as error:
        raise unreadable(error, str(error.filename or name)) from error
    except _CAUGHT as error:
        raise UnforeseenError(
            f"{shortened(str(name))} cannot be read",
            cause=f"{type(error).__name__}: {error}",
            hint="it is malformed in a way that porter does not know; please report it, with the traceback"
            + (f" ({flag('debug')})" if at_command_line() else ""),
        ) from error
