"""A child process under ptrace: stopped before each of its system calls, in every thread, for whoever wants
to kill it, let the call fail, let it do half of its work, or do something else meanwhile.

Linux on x86-64 alone: registers are read and written.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

AVAILABLE = sys.platform == "linux" and platform.machine() == "x86_64"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

# From <sys/ptrace.h>.
_TRACEME, _PEEK, _POKE, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 2, 5, 12, 13, 24, 0x4200
# Syscall stops are told from others, new threads are traced, and all die with the tracer.
_OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x100000
_WALL = 0x40000000

# Seconds, after which a child is killed by SIGALRM. A run under ptrace takes one; where others write
# gigabytes to the same disk, a single fsync has taken half a minute.
_LIMIT = 110

# From <asm/unistd_64.h>: what touches files, memory, threads or the network. Calls of other kinds are counted
# with the rest.
# fmt: off
NAMES = {
    0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 8: "lseek", 9:
    "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 16: "ioctl", 17: "pread64", 18: "pwrite64", 19:
    "readv", 20: "writev", 21: "access", 32: "dup", 40: "sendfile", 41: "socket", 42:
    "connect", 56: "clone", 72:
    "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 78:
    "getdents", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink", 88:
    "symlink", 89: "readlink", 90: "chmod", 91: "fchmod", 137: "statfs", 138: "fstatfs", 217:
    "getdents64", 221: "fadvise64", 257: "openat", 258: "mkdirat", 262: "newfstatat", 263:
    "unlinkat", 264: "renameat", 277: "sync_file_range", 285: "fallocate", 295: "preadv", 296:
    "pwritev", 316: "renameat2", 318: "getrandom", 326: "copy_file_range", 327: "preadv2", 328:
    "pwritev2", 332: "statx", 435: "clone3",
}
# fmt: on

# Calls after which the disk can be another than before; a kill at any other finds it as at the last of these.
# fmt: off
CHANGING = {
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range",
    "fallocate", "truncate", "ftruncate", "rename", "renameat", "renameat2", "mkdir", "mkdirat",
    "rmdir", "creat", "link", "unlink", "unlinkat", "symlink", "chmod", "fchmod", "open", "openat",
    "fsync", "fdatasync", "ioctl", "flock",
}
# fmt: on

# Calls that may do less than they were asked to, and the register that holds how much that was.
SHORT = {
    "read": "rdx",
    "write": "rdx",
    "pread64": "rdx",
    "pwrite64": "rdx",
    "sendfile": "r10",
    "copy_file_range": "r8",
}
# Those whose length stands in memory, in the first of the buffers that rsi leads to.
SHORT_IN_MEMORY = {"readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2"}


class Registers(ctypes.Structure):
    """<sys/user.h>'s user_regs_struct."""

    _fields_: ClassVar = [
        (name, ctypes.c_ulonglong)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi"),
            *(
                "rdi",
                "orig_rax",
                "rip",
                "cs",
                "eflags",
                "rsp",
                "ss",
                "fs_base",
                "gs_base",
                "ds",
                "es",
                "fs",
                "gs",
            ),
        )
    ]


@dataclass(frozen=True)
class Call:
    """The `number`-th system call since the work began, counted from 0 over all threads."""

    number: int
    name: str
    pid: int
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ended:
    """`code` as a shell has it: 128 and the signal for a process that was killed. `calls` were begun."""

    code: int
    calls: tuple[str, ...]
    seconds: float
    megabytes: float


KILL = "kill"
HALF = "half"
# Or the number of an error.
Action = str | int | None


class Work(Protocol):
    """`ready` comes before the first call that is counted; the call returns the exit code."""

    def ready(self) -> None: ...

    def __call__(self) -> int: ...


def run(work: Work, before: Callable[[Call], Action] | None = None, limit: float = 100.0) -> Ended:
    """Runs `work` in a fork of this process, and `before` here ahead of each of its system calls.

    The process is killed after `limit` seconds, with code 124.
    """
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(work, traced=before is not None)
    if before is None:
        _, status, usage = os.wait4(pid, 0)
        return Ended(_code(status), (), time.monotonic() - started, usage.ru_maxrss / 1024)
    return _Tracer(pid, before, started, limit).run()


def _child(work: Work, *, traced: bool) -> None:
    code = 70
    # Whatever it waits for: the tracer hears of nothing that does not happen.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LIMIT)
    try:
        work.ready()
        if traced:
            _LIBC.ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
        code = work()
    finally:
        os._exit(code)


class _Tracer:
    def __init__(self, pid: int, before: Callable[[Call], Action], started: float, limit: float) -> None:
        self.pid, self.before, self.started, self.limit = pid, before, started, limit
        self.calls: list[str] = []
        # What is to be done at the end of the call in which a thread is; a thread that is in none has no
        # entry.
        self.inside: dict[int, Callable[[Registers], None] | None] = {}
        self.known = {pid}
        self.late = False

    def run(self) -> Ended:
        os.waitpid(self.pid, _WALL)
        self._ptrace(_SETOPTIONS, self.pid, _OPTIONS)
        self._go_on(self.pid)
        while True:
            tid, status, usage = os.wait4(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self.inside.pop(tid, None)
                if tid == self.pid:
                    seconds = time.monotonic() - self.started
                    code = 124 if self.late else _code(status)
                    return Ended(code, tuple(self.calls), seconds, usage.ru_maxrss / 1024)
                continue
            if time.monotonic() - self.started > self.limit:
                self.late = True
                os.kill(self.pid, signal.SIGKILL)
                continue
            stop = os.WSTOPSIG(status)
            if stop == signal.SIGTRAP | 0x80:
                self._at_call(tid)
            elif stop == signal.SIGTRAP or (stop == signal.SIGSTOP and tid not in self.known):
                self.known.add(tid)
                self._go_on(tid)
            else:
                self._go_on(tid, stop)

    def _at_call(self, tid: int) -> None:
        registers = Registers()
        if self._ptrace(_GETREGS, tid, ctypes.addressof(registers)) < 0:
            return
        if tid in self.inside:
            after = self.inside.pop(tid)
            if after is not None:
                after(registers)
                self._ptrace(_SETREGS, tid, ctypes.addressof(registers))
            self._go_on(tid)
            return
        number = registers.orig_rax
        name = NAMES.get(number)
        if name is None:
            self.inside[tid] = None
            self._go_on(tid)
            return
        call = Call(
            len(self.calls),
            name,
            self.pid,
            (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8),
        )
        self.calls.append(name)
        action = self.before(call)
        if action == KILL:
            os.kill(self.pid, signal.SIGKILL)
            return
        self.inside[tid] = self._struck(tid, name, registers, action)
        self._go_on(tid)

    def _struck(
        self, tid: int, name: str, registers: Registers, action: Action
    ) -> Callable[[Registers], None] | None:
        if action is None:
            return None
        if isinstance(action, int):
            number = action

            def fail(after: Registers) -> None:
                after.rax = ctypes.c_ulonglong(-number).value

            # There is no such call, so nothing happens.
            registers.orig_rax = ctypes.c_ulonglong(-1).value
            self._ptrace(_SETREGS, tid, ctypes.addressof(registers))
            return fail
        if name in SHORT_IN_MEMORY:
            place = registers.rsi + 8
            length = _LIBC.ptrace(_PEEK, tid, place, None)
            _LIBC.ptrace(_POKE, tid, place, max(1, length // 2))
            registers.rdx = 1
            self._ptrace(_SETREGS, tid, ctypes.addressof(registers))

            def restore(after: Registers) -> None:
                _LIBC.ptrace(_POKE, tid, place, length)

            return restore
        register = SHORT[name]
        setattr(registers, register, max(1, getattr(registers, register) // 2))
        self._ptrace(_SETREGS, tid, ctypes.addressof(registers))
        return None

    def _go_on(self, tid: int, signal_: int = 0) -> None:
        self._ptrace(_SYSCALL, tid, signal_)

    def _ptrace(self, request: int, tid: int, data: Any) -> int:
        return int(_LIBC.ptrace(request, tid, None, data))


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
