"""Which tokens an attack may write, and how token ids and text correspond."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.base import CellError, Ids
from harness.data import special_ids
from harness.subject.rules import WORD, TokenRules, is_stop_word

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from harness.subject.scheduler import Draft

REPLACEMENT = "\ufffd"
"""What decoding puts where the bytes of a token are no text on their own."""
BYTE_SPACE = "\u0120"
"""How byte-level tokenizers write a space in their tokens."""
PIECE_SPACE = "\u2581"
"""How SentencePiece does."""


MANY = 64
"""So many texts go to the tokenizer's threads; fewer would wait longer for those, which
another caller may keep busy, than they take."""
MOST_WORDS = 2**18
"""About how many words are remembered, and whether they come back."""


class Vocabulary:
    """The tokenizer's side of a subject.

    Embedding matrices have rows that are no token (Pythia: 50,304 rows for 50,277
    tokens), special tokens that no text contains, and tokens that are parts of a
    character. None of them may appear in an attack.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: int,
        rules: TokenRules | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.rows = rows
        """Number of rows of the embedding matrix."""
        self.rules = rules or TokenRules(reachable_only=False)
        """Which tokens may be written, and over which; by default any, over any."""
        self._known_words: dict[bytes, bool] = {}

    @cached_property
    def allowed(self) -> Ids:
        """The ids [k], ascending, that an attack may write.

        Those that are in the tokenizer and in the embedding, not special, not added
        after the tokenizer's training, whose own text is neither empty nor broken, and
        that the rules allow. Raises CellError where none is left.
        """
        known = {i for i in self.tokenizer.get_vocab().values() if 0 <= i < self.rows}
        special = self.tokenizer.all_special_ids
        added = self.tokenizer.get_added_vocab().values()
        candidates = sorted(known.difference(special, added))
        kept = [i for i in candidates if self._may_be_written(i)]
        if not kept:
            raise CellError(
                f"the token rules leave none of the tokenizer's {len(known)} tokens"
            )
        return np.array(kept, dtype=np.int64)

    @cached_property
    def sha256(self) -> str:
        """The hash of the allowed ids, as decimal numbers joined by commas."""
        return hashlib.sha256(",".join(map(str, self.allowed)).encode()).hexdigest()

    def mask(self, rows: int | None = None) -> NDArray[np.bool_]:
        """Return a boolean array [rows] that is true at the allowed ids."""
        mask = np.zeros(self.rows if rows is None else rows, dtype=np.bool_)
        mask[self.allowed] = True
        return mask

    def encode(self, text: str) -> Ids:
        """Return the ids [n] of a text, without the tokens that open or close it."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.array(ids, dtype=np.int64)

    def decode(self, ids: Ids) -> str:
        """Return the text of ids, special tokens included, spaces untouched."""
        text = self.tokenizer.decode(
            [int(i) for i in ids],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return str(text)

    @cached_property
    def opening(self) -> Ids:
        """The ids that the tokenizer puts before every text: OPT's ``</s>``."""
        return np.array(special_ids(self.tokenizer)[0], dtype=np.int64)

    @cached_property
    def closing(self) -> Ids:
        """The ids that the tokenizer puts after every text: T5's ``</s>``."""
        return np.array(special_ids(self.tokenizer)[1], dtype=np.int64)

    def texts(self, ids: Ids) -> list[str]:
        """Return the text of each token, with the space that it begins with.

        Decoded alone, SentencePiece's tokens lose theirs. Parts of a character and ids
        that are no token are U+FFFD.
        """
        known = self._texts
        return [known[i] if 0 <= i < len(known) else REPLACEMENT for i in ids]

    def stop_words(self, prompt: Ids) -> NDArray[np.bool_]:
        """Return an array [n] that is true where a token is a part of a stop word."""
        texts = self.texts(prompt)
        ends = np.cumsum([len(text) for text in texts])
        found = np.zeros(len(texts), dtype=np.bool_)
        for word in WORD.finditer("".join(texts)):
            if is_stop_word(word.group()):
                span = [word.start(), word.end() - 1]
                first, last = np.searchsorted(ends, span, "right")
                found[first : last + 1] = True
        return found

    def reachable(self, prompts: Iterable[Ids]) -> list[bool]:
        """Say of each prompt whether there is a text that the tokenizer turns into it.

        The whole prompt is decoded and encoded again, in batches. What the tokenizer
        itself puts around a text is left out where the prompt has it: no text needs to
        contain it.
        """
        bodies = [np.asarray(prompt) for prompt in prompts]
        if len(self.opening) or len(self.closing):
            bodies = [self._body(body) for body in bodies]
        found = [False] * len(bodies)
        if not bodies:
            return found
        known = list(range(len(bodies)))
        if not self._are_tokens(np.concatenate(bodies)):
            known = [i for i in known if self._are_tokens(bodies[i])]
        ids = [bodies[i].tolist() for i in known]
        again = self._encoded(self._decoded(ids))
        for i, before, after in zip(known, ids, again, strict=True):
            found[i] = before == after
        return found

    def words(self, ids: Ids) -> Ids:
        """Return those of some ids that begin a word; all of them where none does."""
        found: Ids = ids[self._begin_words[ids]]
        return found if len(found) else ids

    def broken_words(
        self, prompts: Sequence[Ids] | Ids, changed: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Say of each token [C, n] whether its word, alone, comes back as other ids.

        Takes prompts of equal length and which of their tokens [C, n] have changed: no
        words are looked at but those that a change is in or ends. A word goes from a
        token that begins with a space to the next. Most tokenizers cut texts there
        first, so that a prompt is reachable if it was so before and no word is broken;
        `reachable` decides.
        """
        ids = np.asarray(prompts)
        begins = np.take(self._begin_words, ids, mode="clip")
        begins[:, :1] = True
        first, word = np.flatnonzero(begins), begins.cumsum().reshape(ids.shape) - 1
        near = changed.copy()
        near[:, :-1] |= changed[:, 1:]
        looked = _distinct(word[near], len(first))
        ends = np.append(first[1:], ids.size)
        flat = ids.ravel()
        words = [flat[first[i] : ends[i]] for i in looked]
        broken = np.zeros(len(first), dtype=np.bool_)
        broken[looked] = np.logical_not(self._come_back(words))
        found: NDArray[np.bool_] = broken[word]
        return found

    def mended(self, drafts: Sequence[Draft]) -> list[Ids | None]:
        """Take back changes that break words, until no word of a prompt is broken.

        The last of a word each time. Returns None for prompts of which nothing is left,
        and for those where a word stays broken.
        """
        found: list[Ids | None] = [None] * len(drafts)
        equal: dict[int, list[int]] = {}
        for i, draft in enumerate(drafts):
            equal.setdefault(len(draft.prompt_ids), []).append(i)
        for own in equal.values():
            written = np.array([drafts[i].prompt_ids for i in own])
            kept = self._mend(written, np.array([drafts[i].since for i in own]))
            for row in np.flatnonzero(kept):
                found[own[row]] = written[row]
        return found

    def _mend(self, written: Ids, since: Ids) -> NDArray[np.bool_]:
        """Mend prompts [C, n] in place; return of which [C] something is left."""
        changed = written != since
        broken = self.broken_words(written, changed)
        rows = np.flatnonzero(broken.any(axis=1))
        while len(rows):
            which, at_fault = _last_of_each_run(broken[rows], changed[rows])
            places = rows[which], at_fault
            written[places], changed[places] = since[places], False
            rows = _distinct(rows[which], len(written))
            broken[rows] = self.broken_words(written[rows], changed[rows])
            rows = rows[broken[rows].any(axis=1)]
        kept: NDArray[np.bool_] = changed.any(axis=1) & ~broken.any(axis=1)
        return kept

    def _come_back(self, words: Sequence[Ids]) -> list[bool]:
        """Say of words what `reachable` does; a search meets most of them again."""
        if len(self._known_words) > MOST_WORDS:
            self._known_words.clear()
        known, keys = self._known_words, [word.tobytes() for word in words]
        new = {k: w for k, w in zip(keys, words, strict=True) if k not in known}
        known.update(zip(new, self.reachable(new.values()), strict=True))
        return [known[key] for key in keys]

    def _body(self, prompt: Ids) -> Ids:
        """Leave out what the tokenizer puts around every text."""
        first, last = len(self.opening), len(prompt) - len(self.closing)
        if np.array_equal(prompt[last:], self.closing) and last >= 0:
            prompt = prompt[:last]
        if np.array_equal(prompt[:first], self.opening):
            prompt = prompt[first:]
        return prompt

    def _are_tokens(self, ids: Ids) -> bool:
        return not ids.size or bool(ids.min() >= 0 and ids.max() < self._size)

    def _may_be_written(self, token: int) -> bool:
        if not self._alone[token] or REPLACEMENT in self._alone[token]:
            return False
        text, rules = self._texts[token], self.rules
        return (
            (text.isascii() or not rules.ascii_only)
            and ((text[0] == " " and text[1:].isalpha()) or not rules.words_only)
            and not (rules.no_stop_words and is_stop_word(text))
        )

    @cached_property
    def _alone(self) -> list[str]:
        """What each id of the tokenizer decodes to by itself."""
        return self._decoded([[i] for i in range(self._size)])

    @cached_property
    def _size(self) -> int:
        """Number of tokens, added ones included: slow to count in some versions."""
        return len(self.tokenizer)

    @cached_property
    def _texts(self) -> list[str]:
        """The text of each id of the tokenizer, see `texts`."""
        ids = range(len(self._alone))
        tokens = [token or "" for token in self.tokenizer.convert_ids_to_tokens(ids)]
        if any(BYTE_SPACE in token for token in tokens):
            return self._alone  # spaces are bytes, and decode to themselves
        return [
            " " + alone.lstrip(" ") if token.startswith(PIECE_SPACE) else alone
            for token, alone in zip(tokens, self._alone, strict=True)
        ]

    @cached_property
    def _begin_words(self) -> NDArray[np.bool_]:
        """Which ids of the tokenizer begin with a space, and then with no other."""
        return np.array([t[:1] == " " and t[1:2].strip() != "" for t in self._texts])

    def _decoded(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Decode sequences as `decode` does."""
        if self._backend is not None:
            if len(sequences) < MANY:
                return [self._backend.decode(ids, False) for ids in sequences]
            return list(self._backend.decode_batch(sequences, False))
        return list(
            self.tokenizer.batch_decode(
                sequences,
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
        )

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as `encode` does."""
        if self._backend is not None:
            # As transformers does at each call: others may have set them. Two threads
            # can read of a tokenizer, and none while it is changed.
            if self._backend.truncation is not None:
                self._backend.no_truncation()
            if self._backend.padding is not None:
                self._backend.no_padding()
            if len(texts) < MANY:
                encode = self._backend.encode
                return [encode(text, add_special_tokens=False).ids for text in texts]
            found = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [one.ids for one in found]
        batch = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return list(batch["input_ids"])

    @cached_property
    def _backend(self) -> Tokenizer | None:
        """What does the work in most tokenizers, on all cores, without offsets."""
        if not self.tokenizer.is_fast:
            return None
        backend: Tokenizer = self.tokenizer.backend_tokenizer
        return backend


def _distinct(numbers: Ids, end: int) -> Ids:
    """Return what is among some whole numbers from 0 to `end`, each once, ascending.

    In a fraction of the time of ``np.unique``, which sorts them.
    """
    among = np.zeros(end, dtype=np.bool_)
    among[numbers] = True
    return np.flatnonzero(among)


def _last_of_each_run(
    broken: NDArray[np.bool_], changed: NDArray[np.bool_]
) -> tuple[Ids, Ids]:
    """Return the rows and the positions of the last change of each run in `broken`.

    What comes right after a run belongs to it: a change there may have cut a word.
    """
    found = []
    for row in np.flatnonzero(broken.any(axis=1)):
        bad, new = broken[row], changed[row]
        edges = np.flatnonzero(np.diff(np.r_[False, bad, False].astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            where = np.flatnonzero(new[first : last + 1])
            if len(where):
                found.append((row, first + where[-1]))
    rows, positions = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return rows, positions
