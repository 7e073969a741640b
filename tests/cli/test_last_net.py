"""What no command foresaw: an error of the system or of Python's own is words and an exit code."""

import errno
import os

import pytest

from porter.cli import common
from porter.errors import stopped


def ended(problem, capsys, debug=False):
    """The exit code and the words of a command that raises `problem`."""

    def fails():
        raise problem

    with pytest.raises(SystemExit) as end:
        common.command(fails)(quiet=False, color=common.Color.auto, offline=False, debug=debug)
    return end.value.code, capsys.readouterr().err


SYSTEM = {
    errno.ENOSPC: (1, "the disk is full"),
    errno.EACCES: (1, "you have no permission"),
    errno.ENAMETOOLONG: (6, "a name is too long"),
    errno.EISDIR: (6, "a directory stands where a file belongs"),
    errno.ELOOP: (6, "circle"),
    errno.ENOMEM: (5, "there is not enough memory"),
    errno.EMFILE: (5, "too many files are open"),
}


@pytest.mark.parametrize("number", SYSTEM)
def test_an_error_of_the_system_names_the_place_and_its_meaning(number, capsys):
    code, said = ended(OSError(number, os.strerror(number), "/some/where"), capsys)
    assert code == SYSTEM[number][0]
    assert said.startswith("error: /some/where: ") and SYSTEM[number][1] in said and "hint: " in said
    assert "Traceback" not in said


def test_an_error_of_the_system_without_a_place(capsys):
    assert ended(OSError(errno.EIO, "x"), capsys) == (
        1,
        "error: the disk has failed to read or write\nhint: look after the disk, then run it again\n",
    )
    assert str(stopped(OSError(errno.EDOM, "out of domain"))) == "out of domain"


@pytest.mark.parametrize("problem", [KeyError("x"), RecursionError("deep"), ValueError("\x1b[2J")])
def test_an_error_of_pythons_own_is_no_traceback(problem, capsys):
    code, said = ended(problem, capsys)
    assert code == 1 and "Traceback" not in said and "\x1b" not in said
    assert type(problem).__name__ in said and "please report it" in said


def test_too_little_memory_is_no_fault(capsys):
    assert ended(MemoryError(), capsys)[0] == 5


def test_debug_shows_where_it_was(capsys):
    code, said = ended(KeyError("x"), capsys, debug=True)
    assert code == 1 and "Traceback" in said and "please report it" in said
