"""Errors of a disk, told from those of a plugin, whatever language says them."""

import errno
import json
import os
import subprocess
import sys

import pytest

from harness.base import CellError, disk_errors, disk_fault
from harness.base.errors import DiskError


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "full", "/a"), "/a: No space left on device"),
        (OSError(errno.EIO, "broken"), "Input/output error"),
        (OSError(errno.ENOENT, "absent", "/a"), None),
        (ValueError("I/O error: No space left on device (os error 28)"), "No space "),
        (ValueError("no space for a lemma"), None),
    ],
)
def test_a_disk_is_known_by_its_number_or_its_words(error, fault):
    found = disk_fault(error)
    assert found is None if fault is None else found.startswith(fault)
    outer = CellError("the subject cannot be written")
    outer.__cause__ = error
    assert disk_fault(outer) == found


WRITERS = """
import json, resource, signal, sys
import safetensors.torch, tokenizers, torch
from harness.base import disk_fault

tensor = torch.zeros(100_000)
vocabulary = {str(number): number for number in range(10_000)}
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "0"))
writers = [
    lambda: torch.save(tensor, "a"),
    lambda: safetensors.torch.save_file({"a": tensor}, "b"),
    lambda: tokenizer.save("c"),
    lambda: open("d", "w").write("d" * 100_000),
]
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
found = []
for writer in writers:
    try:
        writer()
        found.append("written")
    except Exception as error:
        found.append(disk_fault(error))
print(json.dumps(found))
"""


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path):
    printed = subprocess.check_output(
        [sys.executable, "-c", WRITERS], text=True, cwd=tmp_path
    )
    assert json.loads(printed) == [
        "a file could not be written",
        *["File too large"] * 3,
    ]


def test_a_disk_fails_no_unit(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))
    said = r"^a\.b is not finished: .*/x: No space left on device; what was finished is"
    with pytest.raises(DiskError, match=said), disk_errors("a.b"):
        raise full
    with pytest.raises(KeyError), disk_errors("a.b"):
        raise KeyError("x")
