"""Write the schemas from the models: ``python -m harness.schemas``."""

from harness.base.store import write_json
from harness.schemas import FOLDER, KINDS, generate

for kind, file in KINDS.items():
    write_json(FOLDER / file, generate(kind))
