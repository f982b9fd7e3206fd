"""Names that a user chooses, and the mark of those that name an arm."""

from __future__ import annotations

from typing import Annotated

import pydantic

LABEL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Label = Annotated[str, pydantic.Field(pattern=LABEL)]

BASELINE = "baseline"
"""The arm that all others are compared with."""
ARM = "arm-label"
ArmLabel = Annotated[Label, ARM]
"""The type of what names an arm of the suite, by its label."""
