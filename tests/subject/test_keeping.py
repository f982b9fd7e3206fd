import os

from harness.subject import keep_compiled

KEPT = {"TORCHINDUCTOR_CACHE_DIR": "torch", "TRITON_CACHE_DIR": "triton"}


def test_what_is_compiled_is_kept_where_nobody_says_otherwise(tmp_path, monkeypatch):
    for name in KEPT:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)

    keep_compiled(tmp_path)
    keep_compiled(tmp_path / "other")

    for name, folder in KEPT.items():
        assert os.environ[name] == str(tmp_path / folder)
