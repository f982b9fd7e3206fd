"""The user's own file for clusters: what holds for all suites, unless they state it."""

from __future__ import annotations

import os
from pathlib import Path

from harness.base import SuiteError
from harness.suite import complaints
from harness.suite.cluster import ClusterSection
from harness.suite.yaml import Place, parse


def own_cluster() -> ClusterSection:
    """Read what the user states for all suites: in the file for clusters, if it exists.

    That is what `HARNESS_CLUSTER` names, or ``harness/cluster.yaml`` in the user's
    configuration. Raises SuiteError with all that is wrong with it.
    """
    path = _own_file()
    if not path.is_file():
        return ClusterSection()
    layer = parse(path.read_text(encoding="utf-8"), Place(str(path), 1, path.parent))
    section = complaints.validate(ClusterSection, layer.value or {}, layer)
    if layer.problems or section is None:
        raise SuiteError(layer.problems)
    return section


def _own_file() -> Path:
    stated = os.environ.get("HARNESS_CLUSTER")
    if stated:
        return Path(stated)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "harness" / "cluster.yaml"
