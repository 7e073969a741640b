"""What a plan is on a cluster: its tasks, their bytes, and the time that a stated model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from porter.execution.cluster.divide import bytes_read
from porter.execution.cluster.predict import Prediction
from porter.reporting.text import printable, size, table
from porter.wording import option


def prediction_lines(found: Prediction, *, every: bool = False) -> Iterator[str]:
    """A row for each output file, or for each task; then a row for each number of workers."""
    rows = [["File", "Tasks", "Read", "Written", "Largest part"]]
    for file in found.files:
        sizes = [size(file.read), size(file.written), size(file.largest)]
        rows.append([printable(file.name), str(file.tasks), *sizes])
    yield from table(rows, right=(1, 2, 3, 4))
    if found.first:
        yield f"before that: {found.first} checks and sums, which read {size(found.first_read)}"
    if every:
        rows = [["File", "Part", "From byte", "Read", "Written"]]
        for task in found.tasks:
            sizes = [size(bytes_read(task)), size(task.nbytes)]
            rows.append([printable(task.file), str(task.number), str(task.start), *sizes])
        yield ""
        yield from table(rows, right=(1, 2, 3, 4))
    yield ""
    rows = [["Workers", "Time", "Busy", "Most bytes of one"]]
    for load in found.loads:
        rows.append([str(load.workers), duration(load.seconds), f"{load.busy:.0%}", size(load.most)])
    yield from table(rows, right=(0, 1, 2, 3))
    assumed = found.assumed
    yield (
        f"on paper: each worker reads {size(assumed.read)}/s, writes {size(assumed.write)}/s, and takes "
        f"{assumed.task:g} s for a task besides"
    )
    yield f"for yours: {option('assume', 'workers=N,read=RATE,write=RATE,task=SECONDS')}"


def prediction_to_json(found: Prediction) -> dict[str, Any]:
    return {
        "assumed": vars(found.assumed),
        "files": [vars(file) for file in found.files],
        "first": {"tasks": found.first, "read": found.first_read},
        "tasks": [
            {
                "file": task.file,
                "part": task.number,
                "start": task.start,
                "read": bytes_read(task),
                "written": task.nbytes,
            }
            for task in found.tasks
        ],
        "loads": [vars(load) for load in found.loads],
    }


def duration(seconds: float) -> str:
    """`12.3 s`, `4 min 10 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
