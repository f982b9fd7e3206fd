r"""Time how a corpus becomes blocks of tokens, beside the tokenizer library alone.

Run from the repository's root, for example:

    python benchmarks/tokens.py --tokenizer FOLDER --documents DOCUMENTS.jsonl

The documents are repeated and packed into one jsonl.zst, as the Pile is. The library
gets them from memory, 500 at once; what is measured of ours includes that file. Seconds
are also counted as those of the processor, on all cores, which others may use as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from harness.base import Store
from harness.data import Corpora, CorpusSection, token_blocks
from harness.models import load_tokenizer

AT_ONCE = 500


def main() -> None:
    """Print tokens a second of both, and the memory of the process during ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder")
    parser.add_argument("--documents", type=Path, required=True, help="jsonl")
    parser.add_argument("--repeats", type=int, default=1000)
    arguments = parser.parse_args()
    library = load_tokenizer(arguments.tokenizer).backend_tokenizer
    lines = arguments.documents.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines] * arguments.repeats

    def alone() -> int:
        parts = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
        encoded = (library.encode_batch(x, add_special_tokens=False) for x in parts)
        return sum(len(each) for batch in encoded for each in batch)

    timed("the library alone", alone)
    with tempfile.TemporaryDirectory() as folder:
        timed("from a file to blocks", lambda: ours(arguments, texts, Path(folder)))


def timed(name: str, count: Callable[[], int]) -> None:
    """Print how many tokens come in a second."""
    clock, processor = time.perf_counter(), time.process_time()
    tokens = count()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(
        f"{name}: {tokens:,} tokens, {tokens / clock:,.0f}/s, "
        f"{tokens / processor:,.0f} for a second of one core"
    )


def ours(arguments: argparse.Namespace, texts: list[str], folder: Path) -> int:
    """Return how many tokens are in blocks of 2,048."""
    packed = folder / "documents.jsonl.zst"
    with zstandard.open(packed, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    texts.clear()
    store, memory = Store(folder / "store"), []
    blocks = token_blocks(
        Corpora({"texts": CorpusSection(path=str(packed))}, store),
        "texts",
        load_tokenizer(arguments.tokenizer),
        str(arguments.tokenizer),
        2048,
        10**10,
        store,
        lambda done, total: memory.append(resident_megabytes()),
    )
    print(
        f"memory: {memory[0]:.0f} MB after the first batch, at most {max(memory):.0f}"
    )
    return int(blocks.size)


def resident_megabytes() -> float:
    """Return the memory that the process has now, on Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
