"""What is said of a plugin's class that does not fit its kind."""

import re

import pytest

from harness.api import Attack, load_registry, stated_budget
from harness.base import PluginError

METHODS = "    measure = summarise = lambda *_: None\n"
ATTACK = """
class Thing(Attack):
    name = 'x'
    def run(self, subject, examples, context): yield
    def budget(self, examples): ...
"""
CONSTRAINT = """
class Thing(Constraint):
    name = 'x'
    def apply(self, adapter, model, seed): ...
"""
FAULTS = {
    "Thing = 3": "3 is no subclass of Metric",
    "class Thing: pass": "is no subclass of Metric",
    "class Thing(Metric): name = 'x'": "Thing does not define measure, summarise",
    f"class Thing(Metric):\n{METHODS}": "Thing has no `name`",
    f"class Thing(Metric):\n    name = 'x'\n    Options = dict\n{METHODS}": (
        "Thing.Options is no subclass of harness.api.Options"
    ),
    # signatures
    ATTACK.replace(", context)", ")"): (
        "Thing.run(self, subject, examples) has to take what "
        "run(self, subject, examples, context) takes"
    ),
    ATTACK.replace("context)", "context, *, depth: int)"): (
        "Thing.run(self, subject, examples, context, *, depth) has to take what "
        "run(self, subject, examples, context) takes"
    ),
    ATTACK.replace("(self, examples)", "(self)"): (
        "Thing.budget(self) has to take what budget(self, examples) takes"
    ),
    ATTACK + "    def __init__(self): ...": (
        "Thing.__init__(self) has to take what __init__(self, options) takes"
    ),
    ATTACK + "    @staticmethod\n    def missing(self): ...": (
        "Thing.missing(self) has to take what missing() takes"
    ),
    ATTACK + "    doubled = None": "Thing.doubled is None and no method",
    CONSTRAINT.replace(", seed)", ")"): (
        "Thing.apply(self, adapter, model) has to take what "
        "apply(self, adapter, model, seed) takes"
    ),
    "class Thing(ModelAdapter):\n    name = 'x'\n    def load(self): ...\n"
    "    missing = fingerprint = anatomy = set_activation = lambda *_: None": (
        "Thing.load(self) has to take what load(self, store_root) takes"
    ),
    "class Thing(Metric):\n    name = 'x'\n    def measure(self, subject): ...\n"
    "    def summarise(self, rows): ...": (
        "Thing.measure(self, subject) has to take what "
        "measure(self, subject, context) takes"
    ),
    "class Thing(Metric):\n    name = 'x'\n    def summarise(self): ...\n"
    "    measure = lambda *_: None": (
        "Thing.summarise(self) has to take what summarise(self, rows) takes"
    ),
    # properties and attributes
    CONSTRAINT + "    def uses_examples(self): return True": (
        "Thing.uses_examples is a method; it has to be a property or a value"
    ),
    ATTACK + "    controls = ['random']": (
        "Thing.controls is ['random']: Input should be a valid tuple"
    ),
    ATTACK + "    shows = 'much'": "Thing.shows is 'much': Input should be 'search', ",
    ATTACK
    + "    replays = 'no'": "Thing.replays is 'no': Input should be a valid bool",
    # defaults
    "class O(Options):\n    steps: int = '3'\n    size: int\n"
    f"class Thing(Metric):\n    name = 'x'\n    Options = O\n{METHODS}": (
        "Thing.Options.steps has a wrong default, '3': Input should be a valid integer"
    ),
    "class O(Options):\n    steps: tuple[int, ...] = (1, 0.5)\n"
    f"class Thing(Metric):\n    name = 'x'\n    Options = O\n{METHODS}": (
        "Thing.Options.steps.1 has a wrong default, 0.5: Input should be a valid int"
    ),
}
IMPORT = "from harness.api import Attack\nclass"
OFFER = "register_attacks = hookimpl(lambda: [Thing], specname='register_attacks')"
KINDS = {"Attack": "attacks", "Constraint": "constraints", "ModelAdapter": "models"}


@pytest.mark.parametrize("body", FAULTS)
def test_a_class_that_does_not_fit_is_an_error_when_it_is_loaded(write, body):
    kinds = [kind for base, kind in KINDS.items() if f"Thing({base})" in body]
    hook = f"register_{(kinds or ['metrics'])[0]}"
    path = write(
        "wrong",
        "from harness.api import Attack, Constraint, Metric, ModelAdapter, Options\n"
        f"{body}\n{hook} = hookimpl(lambda: [Thing], specname='{hook}')\n",
    )
    with pytest.raises(PluginError) as caught:
        load_registry([path])
    assert str(caught.value).startswith(f"plugin {path}, {hook}: ")
    assert FAULTS[body] in str(caught.value)


def test_what_fits_in_another_form_is_taken(write):
    """Further arguments with defaults, other names, properties, static methods."""
    path = write(
        "right",
        """
        from harness.api import Attack, Options

        class Needs(Options):
            either: int | None = None
            size: int

        class Fits(Attack):
            name = "fits"
            Options = Needs

            @property
            def replays(self):
                return self.options.size > 3

            def run(self, model, examples, *rest, trace=False):
                yield

            @staticmethod
            def budget(examples):
                return None

            @classmethod
            def missing(cls):
                return []

        @hookimpl
        def register_attacks():
            return [Fits]
        """,
    )
    registry = load_registry([path])
    assert isinstance(registry.create("attack", "fits", {"size": 3}), Attack)


UNUSUAL = {
    "a decorator that adds an argument": """
    @add
    def run(self, subject, examples, context, added): yield
""",
    "a decorator with arguments of its own": """
    @adapt
    def run(self, subject): yield
""",
    "a partial": "    run = functools.partial(lambda subject, examples, context: ())",
    "what depends on the options": """
    @functools.cached_property
    def replays(self): return True
""",
    "options with an alias": """
    class Options(Options):
        size: int = pydantic.Field(3, alias="Size")
""",
    "a default that depends on others": """
    class Options(Options):
        size: int = 3
        more: int = pydantic.Field(default_factory=lambda others: others["size"])
""",
    "a validator that reads what is required": """
    class Options(Options):
        size: int
        more: int = 3
        @pydantic.model_validator(mode="before")
        @classmethod
        def check(cls, given): return given["size"] and given
""",
}
DECORATORS = """
import functools
import pydantic
from harness.api import Attack, Options

def add(method):
    @functools.wraps(method)
    def outer(self, *given): return method(self, *given, 3)
    return outer

def adapt(method):
    @functools.wraps(method)
    def outer(self, subject, examples, context): return method(self, subject)
    return outer
"""


@pytest.mark.parametrize("body", UNUSUAL)
def test_what_works_is_not_refused(write, body):
    path = write("unusual", f"{DECORATORS}{ATTACK}{UNUSUAL[body]}\n{OFFER}\n")
    assert load_registry([path]).get("attack", "x").source == str(path)


def test_a_decorator_does_not_hide_a_wrong_signature(write):
    decorated = "    @add\n    def run(self, subject): yield"
    path = write("hidden", f"{DECORATORS}{ATTACK}{decorated}\n{OFFER}\n")
    with pytest.raises(PluginError, match=r"Thing.run\(self, subject\) has to take"):
        load_registry([path])


BUDGETS = {
    "(1, 2)": "returned (1, 2) from `budget`; expected a harness.api.Budget",
    "None": "returned None from `budget`; expected a harness.api.Budget",
    "Budget('many', 0)": "returned 'many' as `forward` of its budget; expected a",
    "Budget(1, -1)": "returned -1 as `backward` of its budget; expected a",
    "Budget(1, 1, prepended=None)": "returned None as `prepended` of its budget",
}


@pytest.mark.parametrize("value", BUDGETS)
def test_a_budget_that_is_none_is_named(write, value):
    body = ATTACK.replace("(self, examples): ...", f"(self, examples): return {value}")
    imported = IMPORT.replace("Attack\n", "Attack, Budget\n")
    path = write("budget", body.replace("class", imported, 1) + OFFER)
    attack = load_registry([path]).create("attack", "x", {})
    with pytest.raises(PluginError, match=re.escape(f"'x' {BUDGETS[value]}")):
        stated_budget(attack, 3)


def test_the_command_line_exits_with_2(write, cli):
    path = write(
        "wrong", ATTACK.replace(", context)", ")").replace("class", IMPORT, 1) + OFFER
    )
    outcome = cli("list", "--plugins", path)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: plugin {path}, register_attacks: Thing.run(")
