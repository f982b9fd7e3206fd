"""Forge a run in every way, and print what is found: ``python -m tests.forgeries``.

The run is one that the tests make: give its folder.
"""

import sys
import tempfile
import time
from pathlib import Path

from harness.running import validate
from tests.forgeries.forger import Forger
from tests.forgeries.kinds import KINDS

run = Path(sys.argv[1])
found = 0
for kind in KINDS:
    with tempfile.TemporaryDirectory() as place:
        forger = Forger(run, Path(place) / "copy")
        kind.forge(forger)
        start = time.monotonic()
        problems = validate([forger.run]).problems
        took = time.monotonic() - start
        errors = [x for x in problems if x.severity == "error"]
        first = str(errors[0])[-150:].replace("\n", " ") if errors else "--"
        found += bool(errors)
        print(f"{kind.name:40} {kind.found_by:7} {took:4.1f} s  {first}", flush=True)
print(f"{found} of {len(KINDS)} found")
