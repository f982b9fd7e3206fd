"""Imports of a run: what is not needed stays out, and garbage is collected again."""

import gc

import pytest

from harness.running import quick_imports


def test_a_run_imports_models_and_neither_scikit_learn_nor_scipy_s_statistics(imported):
    modules = imported(
        "import gc",
        "from harness.running import quick_imports",
        "with quick_imports(): assert not gc.isenabled()",
        "assert gc.isenabled()",
        "assert len(gc.get_objects()) < gc.get_freeze_count() / 10",
        "from transformers import AutoModelForCausalLM",
        "import harness.running.suite_run",
    )
    assert {"torch", "transformers.modeling_utils"} <= modules
    assert not {"sklearn", "scipy.stats"} & modules


def test_what_transformers_found_already_is_not_hidden(imported):
    modules = imported(
        "from transformers.utils import is_sklearn_available",
        "is_sklearn_available()",
        "from harness.running import quick_imports",
        "with quick_imports(): pass",
    )
    assert "transformers.generation.utils" in modules


def test_garbage_is_collected_again_after_an_error_and_no_sooner_than_before():
    with pytest.raises(ValueError, match="wrong"), quick_imports():
        raise ValueError("wrong")
    assert gc.isenabled()
    import torch  # noqa: F401 (from here on, nothing comes by the block)

    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
        assert gc.get_freeze_count() == frozen
    finally:
        gc.enable()
