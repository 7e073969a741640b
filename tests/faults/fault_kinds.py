"""The kinds of fault, each a row of the table in docs/reliability.md."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import fault_oracle as oracle
import traced
from fault_bench import Bench, Command, Tally
from traced import CHANGING, HALF, KILL, SHORT, SHORT_IN_MEMORY, Call

# What a call of each kind may answer on a machine that is ill, full, or not one's own.
_ANSWERS = {
    "read": (errno.EIO, errno.EINTR),
    "write": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR),
    "open": (errno.EIO, errno.EMFILE, errno.EACCES, errno.ENOSPC),
    "sync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "name": (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS),
    "look": (errno.EIO, errno.EACCES),
    "memory": (errno.ENOMEM,),
    "thread": (errno.EAGAIN,),
    "lock": (errno.EIO, errno.ENOLCK),
}
_KINDS = {
    "read": "read pread64 preadv preadv2 readv getdents64",
    "write": "write pwrite64 pwritev pwritev2 writev sendfile copy_file_range fallocate ftruncate",
    "open": "open openat",
    "sync": "fsync fdatasync sync_file_range",
    "name": "rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat chmod fchmod close",
    "look": "stat lstat fstat newfstatat statx",
    "memory": "mmap",
    "thread": "clone clone3",
    "lock": "flock",
}
ANSWERS = {name: _ANSWERS[kind] for kind, names in _KINDS.items() for name in names.split()}


def calls_of(bench: Bench, *, force: bool) -> tuple[str, ...]:
    """The system calls of a run without a fault."""
    bench.set_up(force=force)
    ended = traced.run(bench.convert(force=force), lambda call: None)
    assert ended.code == 0, bench.said.read_text()
    return ended.calls


def some(items: Sequence[int], most: int | None) -> Sequence[int]:
    """All of them, or as many as wanted, spread evenly."""
    if most is None or len(items) <= most:
        return items
    return [items[round(at * (len(items) - 1) / max(1, most - 1))] for at in range(most)]


def at(number: int, action: traced.Action, name: str | None = None) -> Callable[[Call], traced.Action]:
    """At the call of that number or, since threads do not run alike twice, the first one from there on of
    that name.
    """
    struck: list[int] = []

    def before(call: Call) -> traced.Action:
        if struck or call.number < number or name not in (None, call.name):
            return None
        struck.append(call.number)
        return action

    return before


def doing(number: int, act: Callable[[], None]) -> Callable[[Call], traced.Action]:
    def before(call: Call) -> traced.Action:
        if call.number == number:
            act()
        return None

    return before


def _interrupting(number: int) -> Callable[[Call], traced.Action]:
    def before(call: Call) -> traced.Action:
        if call.number == number:
            os.kill(call.pid, signal.SIGINT)
        return None

    return before


def kills(bench: Bench, tally: Tally, *, force: bool, most: int | None = None) -> None:
    """A kill before each system call of a run."""
    calls = calls_of(bench, force=force)
    for number in tally.share(some(range(len(calls)), most)):
        bench.set_up(force=force)
        ended = traced.run(bench.convert(force=force), at(number, KILL))
        bench.judge(tally, ended, f"killed at call {number}, {calls[number]}", force=force)


def kills_without_exchange(bench: Bench, tally: Tally, *, most: int) -> None:
    """As where a file system cannot exchange two names: a kill at each call from there on."""
    for number in tally.share(range(most)):
        bench.set_up(force=True)
        ended = traced.run(bench.convert(force=True), _after_refusing("renameat2", number))
        bench.judge(
            tally, ended, f"killed {number} calls after names were not exchanged", force=True, aside=True
        )


def _after_refusing(name: str, number: int) -> Callable[[Call], traced.Action]:
    seen: list[int] = []

    def before(call: Call) -> traced.Action:
        if call.name == name:
            seen.append(call.number)
            return errno.ENOSYS
        return KILL if seen and call.number == seen[0] + 1 + number else None

    return before


def errors(bench: Bench, tally: Tally, *, most: int | None = None) -> None:
    """Each call that can change the disk, and a part of those that only look, failing with each error."""
    calls = calls_of(bench, force=True)
    looking = [number for number, name in enumerate(calls) if name in ANSWERS and name not in CHANGING]
    wanted = [number for number, name in enumerate(calls) if name in ANSWERS and name in CHANGING]
    wanted = sorted({*wanted, *some(looking, len(wanted) // 2)})
    for at_, number in tally.share(enumerate(some(wanted, most))):
        answers = ANSWERS[calls[number]]
        for answer in answers if most is None else (answers[at_ % len(answers)],):
            bench.set_up(force=True)
            ended = traced.run(bench.convert(force=True), at(number, answer, calls[number]))
            what = f"{errno.errorcode[answer]} at call {number}, {calls[number]}"
            bench.judge(tally, ended, what, force=True)


def shorts(bench: Bench, tally: Tally, *, most: int | None = None) -> None:
    """Each call that reads or writes doing half of what it was asked for; then all of them in one run."""
    calls = calls_of(bench, force=True)
    able = {*SHORT, *SHORT_IN_MEMORY}
    wanted = [number for number, name in enumerate(calls) if name in able]
    for number in tally.share(some(wanted, most)):
        bench.set_up(force=True)
        ended = traced.run(bench.convert(force=True), at(number, HALF, calls[number]))
        bench.judge(tally, ended, f"half of call {number}, {calls[number]}", force=True)
    bench.set_up(force=True)
    ended = traced.run(bench.convert(force=True), lambda call: HALF if call.name in able else None)
    bench.judge(tally, ended, "half of every call", force=True)
    if ended.code != 0:
        tally.flaws.append(f"short reads and writes end it: {bench.said.read_text()[-300:]}")


@contextmanager
def small_disk(base: Path, kind: str, megabytes: int) -> Iterator[Path]:
    root = base / f"disk-{kind}"
    root.mkdir()
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", root], check=True)
    else:
        image = base / "image"
        with image.open("wb") as stream:
            stream.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)
        root.rmdir()


def full_disks(bench: Bench, tally: Tally, *, kind: str, sizes: int) -> None:
    """A disk with less and less room: from none to a little more than the output needs."""
    needed = sum(path.stat().st_size for path in bench.reference.rglob("*") if path.is_file())
    place = bench.place
    with small_disk(bench.base, kind, 8) as root:
        for number in tally.share(range(sizes)):
            room = needed * 6 // 5 * number // (sizes - 1)
            bench.place = root / "place"
            bench.set_up(force=True)
            filler = root / "filler"
            filler.unlink(missing_ok=True)
            free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
            with filler.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(1, free - room))
            ended = traced.run(bench.convert(force=True))
            filler.unlink()
            bench.judge(tally, ended, f"{kind} with {room} bytes free", force=True)
        shutil.rmtree(bench.place)
    bench.place = place


def crowds(bench: Bench, tally: Tally, *, rounds: int, at_once: int = 8) -> None:
    """Several runs to one output at once, of two sources; the output is looked at all the while."""
    for number in tally.share(range(rounds)):
        draw = random.Random(f"crowd {number}")
        bench.set_up(force=True)
        running = []
        for which in range(at_once):
            source = bench.source if which % 2 else bench.base / "other"
            running.append(_forked(bench, source, which, draw.random() * 0.1))
        said = []
        while running:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if oracle.tree_now(bench.out) not in (bench.old, bench.new):
                tally.lost.append(f"round {number}: a mixture was seen")
            if pid == 0:
                time.sleep(0.005)
                continue
            which = next(which for which, known in enumerate(running) if known == pid)
            running.pop(which)
            code = os.waitstatus_to_exitcode(status)
            said.append(code)
            tally.megabytes = max(tally.megabytes, usage.ru_maxrss / 1024)
            tally.found["published" if code == 0 else "refused"] += 1
            if code not in (0, 2):
                tally.flaws.append(f"round {number}: exit code {code}")
        texts = "".join((bench.base / f"said-{which}").read_text() for which in range(at_once))
        if "Traceback" in texts or 0 not in said:
            tally.flaws.append(f"round {number}: {said} {texts[-400:]}")
        left = sorted(path.name for path in bench.place.iterdir() if path != bench.out)
        if left:
            tally.flaws.append(f"round {number}: {', '.join(left)} stays behind")


def _forked(bench: Bench, source: Path, which: int, wait: float) -> int:
    work = Command(bench.words(source, bench.out, "--force"), bench.base / f"said-{which}")
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            time.sleep(wait)
            work.ready()
            code = work()
        finally:
            os._exit(code)
    return pid


def _overwrite(path: Path, other: bytes) -> None:
    with path.open("r+b") as stream:
        stream.write(other)


def _replace(path: Path, other: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(other)
    fresh.replace(path)


def _rewrite(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def _cut(path: Path, other: bytes) -> None:
    os.truncate(path, len(other) // 3)


def _remove(path: Path, other: bytes) -> None:
    path.unlink()


def _lengthen(path: Path, other: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(other[:777])


CHANGES = {
    "overwritten in place": _overwrite,
    "replaced by another of its size": _replace,
    "truncated and written anew": _rewrite,
    "cut short": _cut,
    "removed": _remove,
    "made longer": _lengthen,
}


def changes(bench: Bench, tally: Tally, *, moments: int) -> None:
    """A source file becomes another one at a moment of the run: weights, and a file that is copied."""
    calls = calls_of(bench, force=False)
    kept = bench.source
    files = ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "generation_config.json"]
    for which, (word, change) in enumerate(CHANGES.items()):
        for step, number in tally.share(enumerate(some(range(len(calls)), moments))):
            file = files[(which + step) % len(files)]
            bench.set_up(force=False)
            # Of the same name, which is in the receipt.
            bench.source = bench.base / "changing" / kept.name
            shutil.rmtree(bench.source, ignore_errors=True)
            shutil.copytree(kept, bench.source)
            old = time.time() - 100
            for path in bench.source.iterdir():
                os.utime(path, (old, old))
            other = (bench.base / "other" / file).read_bytes()
            act = partial(change, bench.source / file, other)
            ended = traced.run(bench.convert(force=False), doing(number, act))
            # Whoever comes before the first look at the file gives porter another source, and no change.
            what = f"{file} {word} at call {number}, {calls[number]}"
            if ended.code == 0 and oracle.tree(bench.out) not in (bench.new, ""):
                tally.found["that of the other source"] += 1
                tally.worst(ended)
                if not _is_of(bench):
                    tally.lost.append(f"{what}: a mixture, exit code 0")
            else:
                bench.judge(tally, ended, what, force=False, rerun=False)
            bench.source = kept


def _is_of(bench: Bench) -> bool:
    """Whether the output is just what the source holds that is there now."""
    kept = bench.place / "undisturbed"
    ended = traced.run(Command(bench.words(bench.source, kept), bench.said))
    return ended.code == 0 and _without_label(kept) == _without_label(bench.out)


def _without_label(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def journals(bench: Bench, tally: Tally, *, damages: int) -> None:
    """A run that was killed in the middle, and whose notes or bytes are then damaged, is run again."""
    calls = calls_of(bench, force=False)
    kept = bench.base / "killed"
    moments = [number for number, name in enumerate(calls) if name in ("pwrite64", "fdatasync", "fsync")]
    for number in reversed(moments):
        bench.set_up(force=False)
        traced.run(bench.convert(force=False), at(number, KILL))
        journal = next(bench.place.glob(".out.porter-*/.porter-journal"), None)
        if journal is not None and len(journal.read_bytes().splitlines()) > 4:
            break
    assert journal is not None, "no run left a journal"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(bench.place, kept)
    for number in tally.share(range(damages)):
        draw = random.Random(f"damage {number}")
        shutil.rmtree(bench.place)
        shutil.copytree(kept, bench.place)
        what = _damage(next(bench.place.glob(".out.porter-*/.porter-journal")).parent, draw)
        ended = traced.run(bench.convert(force=False))
        bench.judge(tally, ended, f"damage {number}, {what}", force=False, rerun=False)
        if ended.code != 0:
            tally.flaws.append(
                f"damage {number}, {what}: exit code {ended.code}: {bench.said.read_text()[-300:]}"
            )


def _damage(stage: Path, draw: random.Random) -> str:
    journal = stage / ".porter-journal"
    text = journal.read_bytes()
    lines = text.splitlines(keepends=True)
    weights = [
        path for path in stage.rglob("*") if path.is_file() and path != journal and path.stat().st_size
    ]
    kind = draw.choice(
        ["cut", "flip", "drop", "swap", "twice", "text", "not UTF-8", "bytes", "zeros", "short", "gone"]
    )
    if kind == "cut":
        text = text[: draw.randrange(len(text))]
    elif kind == "flip":
        place = draw.randrange(len(text))
        text = text[:place] + bytes([text[place] ^ (1 << draw.randrange(8))]) + text[place + 1 :]
    elif kind == "drop":
        lines.pop(draw.randrange(len(lines)))
        text = b"".join(lines)
    elif kind == "swap":
        draw.shuffle(lines)
        text = b"".join(lines)
    elif kind == "twice":
        text += draw.choice(lines)
    elif kind == "text":
        text += b'00000000 {"file": "lit_model.safetensors", "start": 0}\n'
    elif kind == "not UTF-8":
        text = text[:-1] + b"\xff\xfe\n"
    elif weights:
        path = draw.choice(weights)
        content = bytearray(path.read_bytes())
        start = draw.randrange(len(content))
        if kind == "bytes":
            content[start] ^= 0xFF
        elif kind == "zeros":
            content[start : start + 4096] = bytes(len(content[start : start + 4096]))
        elif kind == "short":
            del content[start:]
        if kind == "gone":
            path.unlink()
        else:
            path.write_bytes(content)
    journal.write_bytes(text)
    return kind


def interrupts(bench: Bench, tally: Tally, *, most: int) -> None:
    """Ctrl-C at calls spread over a run."""
    calls = calls_of(bench, force=True)
    for number in tally.share(some(range(len(calls)), most)):
        bench.set_up(force=True)
        ended = traced.run(bench.convert(force=True), _interrupting(number))
        bench.judge(tally, ended, f"interrupted at call {number}, {calls[number]}", force=True)
