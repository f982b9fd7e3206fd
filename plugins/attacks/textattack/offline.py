"""Load TextAttack and run it without a network, and leave the process as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.base import offline, replaced


def import_textattack() -> None:
    """Import TextAttack, and keep to itself what it does to the process.

    On its first import it downloads from NLTK, notes in its cache that it did, moves
    other libraries' caches and disables all loggers. None of that is let happen. Where
    NLTK's stop words are absent, without which it cannot be imported, ours stand in.
    """
    import datasets  # noqa: F401 (these read the environment as they are imported)
    import huggingface_hub  # noqa: F401
    import nltk
    import transformers  # noqa: F401

    environment = dict(os.environ)
    logging.disable()
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
        replaced(nltk, "download", lambda *names, **options: False),
        _loggers_left_alone(),
    ):
        warnings.simplefilter("ignore")
        import flair  # noqa: F401

        _provide_stop_words(nltk)
        os.environ["TA_CACHE_DIR"] = folder
        try:
            import textattack
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
            logging.disable(logging.NOTSET)
    home = Path("~/.cache/textattack").expanduser()
    textattack.shared.utils.install.TEXTATTACK_CACHE_DIR = environment.get(
        "TA_CACHE_DIR", str(home)
    )
    logging.getLogger("textattack").setLevel(logging.ERROR)
    textattack.shared.utils.logger.setLevel(logging.ERROR)


def _provide_stop_words(nltk: Any) -> None:
    """Put our stop words where NLTK looks for its own, if those are absent."""
    import atexit
    import shutil

    from harness.subject import STOP_WORDS

    with contextlib.suppress(LookupError):
        nltk.data.find("corpora/stopwords")
        return
    folder = Path(tempfile.mkdtemp(prefix="harness-nltk-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "corpora" / "stopwords" / "english"
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{word}\n" for word in sorted(STOP_WORDS)))
    nltk.data.path.append(str(folder))
    _stood_in.append(folder)


_stood_in: list[Path] = []


def stop_words() -> str:
    """Name the stop words that TextAttack was given."""
    return "harness" if _stood_in else "nltk"


@contextlib.contextmanager
def _loggers_left_alone() -> Iterator[None]:
    """Keep `dictConfig` from disabling the loggers that it is not about."""
    import logging.config

    original = logging.config.dictConfig

    def configure(config: dict[str, Any]) -> None:
        original({**config, "disable_existing_loggers": False})

    with replaced(logging.config, "dictConfig", configure):
        yield


@contextlib.contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Make downloads fail at once: what is in the libraries' caches still serves.

    TextAttack is loaded before: some libraries keep what they read at their import.
    """
    import nltk
    from requests.adapters import HTTPAdapter

    def refuse(adapter: Any, request: Any, **options: Any) -> Any:
        raise _Download(request.url)

    with (
        offline(),
        replaced(nltk, "download", lambda *names, **options: False),
        replaced(HTTPAdapter, "send", refuse),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class _Download(Exception):
    """Something would be downloaded; the message is its address."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (_Download, r"(.+)", "it needs {0}, which TextAttack downloads at its first use"),
    (
        Exception,
        r"huggingface\.co/((?:[\w.-]+/)?[\w.-]+)/resolve/",
        "it needs the model {0} of the Hugging Face hub, which is in no cache",
    ),
    (
        OSError,
        r"(couldn't connect to 'https://huggingface)",
        "it needs a model of the Hugging Face hub, which is in no cache",
    ),
    (
        LookupError,
        r"Resource '?(?:\x1b\[\d+m)*([\w.-]+)(?:\x1b\[\d+m)*'? not found",
        "it needs NLTK's {0}: python -m nltk.downloader {0}",
    ),
    (
        Exception,
        r"(?:No module named|cannot find module named) ['`]([\w.]+)['`]",
        "it needs the package {0}, which the extra leaves out",
    ),
    (
        FileNotFoundError,
        r"No such file or directory: '(.+)'",
        "it needs the file {0}, which is not there",
    ),
)


def cause(error: BaseException) -> str:
    """Say in a sentence what a recipe lacked, by the errors that led to this one."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for kind, pattern, sentence in _CAUSES:
        for one in chain:
            match = re.search(pattern, " ".join(str(one).split()))
            if isinstance(one, kind) and match:
                return sentence.format(match.group(1))
    return " ".join(str(error).split()) or type(error).__name__
