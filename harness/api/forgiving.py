"""Hooks whose failure is a warning, called by pluggy in its own order.

pluggy ends the call of a hook at the first implementation that raises. Trackers are not
on the way to a record, and one broken plugin must not keep out the others: so what an
implementation raises becomes a warning, and the call goes on.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from importlib import metadata
from typing import Any

import pluggy

GROUP = "harness"
"""The entry points by which others' plugins come."""
BY_PATH = "harness_plugin_"
"""What the names of modules begin with that are loaded from a path."""
FAILURES = (Exception, SystemExit)
"""What a plugin may raise without ending a run; ``sys.exit`` would end it as if it were
complete."""


class PluginWarning(UserWarning):
    """A plugin failed, and the rest went on without it."""


def plugin_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last line of another's plugin that an exception came through.

    None where it came through none; plugins that the project ships do not count.
    """
    tops = {x.module.partition(".")[0] for x in metadata.entry_points(group=GROUP)}
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(BY_PATH) or module.partition(".")[0] in tops:
            code = frame.f_code
            return traceback.FrameSummary(code.co_filename, line, code.co_name)
    return None


def warn(plugin: str, problem: str) -> None:
    """Warn of a plugin; within an `except`, with the traceback."""
    text = f"plugin {plugin} {problem}"
    if sys.exc_info()[0]:
        text += f":\n{traceback.format_exc().rstrip()}"
    warnings.warn(PluginWarning(text), stacklevel=3)


def forgive(
    impl: pluggy.HookImpl, hook: str, then: Callable[[Any], Any] | None = None
) -> None:
    """Make an implementation of `hook` warn where it raises, and return nothing.

    Order and wrapping stay pluggy's: only the function that it calls is replaced. A
    wrapper that raises leaves the result as it is. `then` is applied to what an
    implementation returns that is no wrapper.
    """
    function: Callable[..., Any] = impl.function
    problem = f"failed in {hook} and is left out"

    def call(*args: object, **optional: object) -> Any:
        try:
            result = function(*args, **optional)
            return then(result) if then else result
        except FAILURES:
            warn(impl.plugin_name, problem)
            return None

    def wrap(*args: object, **optional: object) -> Generator[None, Any, Any]:
        inner = function(*args, **optional)
        try:
            next(inner)
        except FAILURES:
            warn(impl.plugin_name, problem)
            return (yield)
        outcome = yield
        try:
            inner.send(outcome)
        except StopIteration as end:
            return end.value
        except FAILURES:
            warn(impl.plugin_name, problem)
        else:
            warn(impl.plugin_name, f"yields twice in {hook}")
        return outcome

    wraps = impl.wrapper or impl.hookwrapper
    impl.function = wrap if wraps else call  # type: ignore[misc]
