"""Whether two run folders hold the same results."""

import json

from tests.chaos.comparing import equal

OF_KILLS = {"restarts", "spent"}
"""How often a unit began, and what was lost with those attempts."""
MEASURED = {"seconds", "wall_seconds", "started", "finished", "peak_memory_bytes"}
OF_THE_PROCESS = {"load"}
"""What was loaded before is not loaded again: so that is no matter of the unit."""


def differences(one, other, but="nothing"):
    """Say where the records and samples of two run folders differ, and how.

    Units that have `but` in their id are not looked at.
    """
    names = [
        sorted(
            str(path.relative_to(out))
            for path in out.glob("*/*/record.json")
            if but not in path.parent.name
        )
        for out in (one, other)
    ]
    if names[0] != names[1]:
        return [f"other records: {set(names[0]) ^ set(names[1])}"]
    found = []
    for name in names[0]:
        pair = [json.loads((out / name).read_text()) for out in (one, other)]
        found += _differences(name, *pair)
        samples = [
            out / name.replace("record.json", "samples.jsonl") for out in (one, other)
        ]
        if samples[0].read_bytes() != samples[1].read_bytes():
            found.append(f"{samples[0]}: other samples")
    return found


def _differences(where, one, other):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key not in MEASURED | OF_THE_PROCESS | OF_KILLS:
                yield from _differences(f"{where}.{key}", one.get(key), other.get(key))
    elif not equal(one, other, where):
        yield f"{where}: {one} and {other}"
