"""Discovery, and what is said of plugins that are wrong."""

import hashlib
import importlib
import re
from pathlib import Path

import pydantic
import pytest

import harness_plugins
from harness import __version__
from harness.api import KINDS, PluginWarning, hookspecs, load_registry
from harness.base import PluginError, UsageError

METRIC = """
from harness import hookimpl
from harness.api import Metric, Options

class {cls}(Metric):
    '''Counts documents.'''
    name = "{name}"

    class Options(Options):
        factor: int = 2
        '''What the count is multiplied by.'''

    measure = summarise = lambda *_: None

@hookimpl
def register_metrics():
    return [{cls}]
"""
HOOK = "from harness import hookimpl\n\n@hookimpl\n"


def write(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(code)
    return path


def metric(folder: Path, file: str, name: str) -> Path:
    return write(folder, file, METRIC.format(cls=name.capitalize(), name=name))


@pytest.fixture
def entry_points(monkeypatch, tmp_path):
    """Make modules of a folder look like installed distributions."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*modules: str) -> None:
        for module in modules:
            info = tmp_path / f"{module}-1.2.3.dist-info"
            info.mkdir()
            header = f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2.3\n"
            (info / "METADATA").write_text(header)
            (info / "entry_points.txt").write_text(f"[harness]\n{module} = {module}\n")
        importlib.invalidate_caches()

    return install


def test_each_shipped_file_is_found_and_offers_a_plugin():
    root = Path(harness_plugins.__path__[0])
    files = {f for f in root.glob("*/*.py") if f.name != "__init__.py"}
    files |= set(root.glob("*/*/__init__.py"))
    sources = {Path(info.source) for info in load_registry().all()}
    assert files == sources


def test_a_plugin_named_by_path_is_found_with_source_and_hash(tmp_path):
    path = metric(tmp_path, "count", "count")
    info = load_registry([path]).get("metric", "count")
    assert info.source == str(path)
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.version == "unversioned"


def test_a_new_file_in_a_shipped_folder_is_found_without_registering_it(
    tmp_path, monkeypatch
):
    import harness_plugins.metrics as package

    metric(tmp_path, "dropped_in", "dropped")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert load_registry().get("metric", "dropped").version == __version__


def test_a_package_is_one_plugin_and_its_hash_is_that_of_all_its_files(
    tmp_path, monkeypatch
):
    import harness_plugins.metrics as package

    folder = tmp_path / "packed_up"
    folder.mkdir()
    files = [metric(folder, "__init__", "packed"), write(folder, "part", "A = 1\n")]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    info = load_registry().get("metric", "packed")
    whole = b"".join(file.read_bytes() for file in files)
    assert info.source == str(files[0])
    assert info.sha256 == hashlib.sha256(whole).hexdigest()


def test_a_folder_offers_its_plugins_but_not_its_tests(tmp_path):
    metric(tmp_path, "b", "second")
    metric(tmp_path, "a", "first")
    write(tmp_path, "test_a", "raise AssertionError('a test is no plugin')")
    write(tmp_path, "_shared", "raise AssertionError('a private module neither')")
    names = {info.name for info in load_registry([tmp_path]).all("metric")}
    assert {"first", "second"} <= names


def test_a_file_named_twice_is_one_plugin(tmp_path):
    path = metric(tmp_path, "count", "count")
    twice = [path, tmp_path / ".." / tmp_path.name / path.name, tmp_path]
    assert load_registry(twice).get("metric", "count")


def test_plugins_are_sorted_by_name_however_they_are_found(tmp_path):
    paths = [metric(tmp_path, f"f{i}", name) for i, name in enumerate("cab")]
    orders = [
        [(i.kind, i.name) for i in load_registry(order).all()]
        for order in (paths, paths[::-1])
    ]
    assert orders[0] == orders[1] == sorted(orders[0])


def test_a_broken_plugin_warns_with_its_traceback_and_the_rest_load(tmp_path):
    good = metric(tmp_path, "good", "good")
    bad = write(tmp_path, "bad", "import a_module_that_is_not_there")
    with pytest.warns(PluginWarning) as caught:
        registry = load_registry([bad, good])
    assert registry.get("metric", "good")
    message = str(caught[0].message)
    assert str(bad) in message
    assert (
        "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in message
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "is left out"),
        ("1 +", "is left out"),
        (f"{HOOK}def register_metrics():\n    1 / 0\n", "ZeroDivisionError: division"),
        ("", "implements no hook"),
    ],
    ids=["exits", "does not parse", "a hook that raises", "no hook"],
)
def test_a_plugin_that_cannot_be_used_warns_and_the_rest_load(tmp_path, code, message):
    paths = [write(tmp_path, "bad", code), metric(tmp_path, "good", "good")]
    with pytest.warns(PluginWarning, match=message):
        assert load_registry(paths).get("metric", "good")


def test_a_clash_of_names_is_an_error_naming_both_sources(tmp_path):
    one, two = (metric(tmp_path, file, "count") for file in ("one", "two"))
    with pytest.raises(PluginError) as caught:
        load_registry([two, one])
    assert str(caught.value) == (
        f"two plugins offer the metric 'count': {one} and {two}; "
        "rename one of them or leave it out"
    )


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (
            "register_atacks()",
            "did you mean 'register_attacks'? (known: cell_finished, ",
        ),
        ("cell_started(cell)", r"cell_started.*'cell'"),
    ],
)
def test_a_hook_that_does_not_fit_is_an_error_naming_plugin_and_hook(
    tmp_path, hook, message
):
    path = write(tmp_path, "wrong", f"{HOOK}def {hook}:\n    return []\n")
    with pytest.raises(PluginError) as caught:
        load_registry([path])
    assert str(path) in str(caught.value)
    assert re.search(
        message.replace("?", r"\?").replace("(", r"\("), str(caught.value), re.DOTALL
    )


def test_a_path_that_is_no_plugin_is_an_error(tmp_path):
    with pytest.raises(PluginError, match="neither a Python file nor a folder"):
        load_registry([tmp_path / "absent.py"])


def test_entry_points_come_with_their_distribution_s_version(tmp_path, entry_points):
    metric(tmp_path, "outside", "count")
    entry_points("outside")
    info = load_registry().get("metric", "count")
    assert (info.version, info.source) == ("1.2.3", str(tmp_path / "outside.py"))


def test_one_broken_entry_point_does_not_stop_another(tmp_path, entry_points):
    metric(tmp_path, "outside_good", "count")
    write(tmp_path, "outside_bad", "1 / 0")
    entry_points("outside_bad", "outside_good")
    with pytest.warns(PluginWarning, match=r"(?s)outside_bad.*ZeroDivisionError"):
        assert load_registry().get("metric", "count")


def test_the_environment_limits_which_entry_points_load(
    tmp_path, entry_points, monkeypatch
):
    for name in ("extra_a", "extra_b"):
        metric(tmp_path, name, name)
    entry_points("extra_a", "extra_b")

    def names(limit: str) -> set[str]:
        monkeypatch.setenv("HARNESS_PLUGINS", limit)
        return {info.name for info in load_registry().all()} & {"extra_a", "extra_b"}

    assert names("extra_b") == {"extra_b"}
    assert names(" extra_a, extra_b ,") == {"extra_a", "extra_b"}
    assert names("") == set()
    with pytest.raises(PluginError, match="did you mean 'extra_a'"):
        names("extra_aa")


def test_the_environment_limits_neither_shipped_plugins_nor_paths(
    tmp_path, monkeypatch
):
    path = metric(tmp_path, "count", "count")
    free = [info.source for info in load_registry([path]).all()]
    monkeypatch.setenv("HARNESS_PLUGINS", "")
    assert [info.source for info in load_registry([path]).all()] == free


def test_an_unknown_name_is_an_error_with_the_nearest_match(tmp_path):
    registry = load_registry([metric(tmp_path, "count", "count")])
    with pytest.raises(UsageError, match="unknown metric 'cuont'; did you mean 'count"):
        registry.get("metric", "cuont")
    with pytest.raises(UsageError, match="unknown attack 'count'"):
        registry.get("attack", "count")


def test_create_validates_the_options(tmp_path):
    registry = load_registry([metric(tmp_path, "count", "count")])
    assert registry.create("metric", "count", {}).options.factor == 2
    assert registry.create("metric", "count", {"factor": 5}).options.factor == 5
    with pytest.raises(pydantic.ValidationError, match="fcator"):
        registry.create("metric", "count", {"fcator": 5})


def test_each_kind_has_its_hook_and_its_folder():
    for kind in KINDS:
        assert hasattr(hookspecs, f"register_{kind}s")
        assert (Path(harness_plugins.__path__[0]) / f"{kind}s").is_dir()
