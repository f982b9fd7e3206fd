"""Whether an error is a full or broken disk's: that is no unit's fault, nor ours."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from harness.base.errors import DiskError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SAID = re.compile("|".join(re.escape(os.strerror(number)) for number in _OF_THE_DISK))
_TORCH_SAID = re.compile("PytorchStreamWriter failed|unexpected pos|iostream error")


def disk_fault(error: BaseException) -> str | None:
    """Return what the system says of the disk, where that is the cause of an error.

    Libraries that are not written in Python say it in words alone.
    """
    cause: BaseException | None = error
    while cause is not None:
        said = _SAID.search(str(cause))
        if isinstance(cause, OSError) and cause.errno in _OF_THE_DISK:
            where = f"{cause.filename}: " if cause.filename is not None else ""
            return f"{where}{os.strerror(cause.errno)}"
        if said and not isinstance(cause, OSError):
            return said[0]
        if _TORCH_SAID.search(str(cause)):
            return "a file could not be written"
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def disk_errors(of: str) -> Iterator[None]:
    """Turn what a disk is the cause of into `DiskError`, in a sentence about `of`."""
    try:
        yield
    except Exception as error:
        fault = disk_fault(error)
        if fault is None or isinstance(error, DiskError):
            raise
        kept = "what was finished is kept, and the same command goes on from here"
        raise DiskError(f"{of} is not finished: {fault}; {kept}") from error
