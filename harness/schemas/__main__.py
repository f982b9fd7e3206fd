"""Write the schemas from the models: ``python -m harness.schemas``."""

from harness.schemas import FOLDER, KINDS, generate
from harness.store import write_json

for kind, file in KINDS.items():
    write_json(FOLDER / file, generate(kind))
