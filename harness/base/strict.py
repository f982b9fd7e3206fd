"""The base of all that is validated: suites, options, records and rows."""

from __future__ import annotations

from typing import Annotated

import pydantic


class Strict(pydantic.BaseModel):
    """Unknown keys and numbers that are not finite are errors; nothing changes later.

    The docstring below a field is its description.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # else NaN would be written as null, silently
        protected_namespaces=(),
    )


LARGEST_WHOLE = 2**63 - 1
"""The largest whole number that is read: other programs cannot hold more."""
Positive = Annotated[int, pydantic.Field(gt=0)]
"""The type of an option that is a whole number above 0."""
