"""Which tokens attacks may write, and over which: the rules, as a suite states them."""

from __future__ import annotations

import re
from typing import Annotated

import pydantic

from harness.base import Strict

_WORDS = """
a about above after again against all am an and any are aren't as at be because been
before being below between both but by can can't cannot could couldn't did didn't do
does doesn't doing don't down during each few for from further had hadn't has hasn't
have haven't having he he'd he'll he's her here here's hers herself him himself his
how how's i i'd i'll i'm i've if in into is isn't it it's its itself just let's me
more most mustn't my myself no nor not now of off on once only or other ought our
ours ourselves out over own same shan't she she'd she'll she's should shouldn't so
some such than that that's the their theirs them themselves then there there's these
they they'd they'll they're they've this those through to too under until up upon
very was wasn't we we'd we'll we're we've were weren't what what's when when's where
where's which while who who's whom whose why why's will with won't would wouldn't
you you'd you'll you're you've your yours yourself yourselves
"""
STOP_WORDS = frozenset(_WORDS.split())
"""The closed classes of English: articles, pronouns, prepositions, conjunctions,
auxiliaries and their contractions, after the lists of van Rijsbergen [Information
Retrieval, 1979] and of the Snowball stemmer, without their rarer words."""

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
"""A word: letters, apostrophes between them."""


class TokenRules(Strict):
    """Which tokens attacks may write, and over which, besides what none ever may.

    Attacks and their controls keep to the same rules. By default these are those of
    text: every prompt that is chosen is one that some text encodes to, and nothing else
    is forbidden. Special tokens, ids that are no token, and parts of a character are
    never written.
    """

    ascii_only: bool = False
    """Write no token whose text has other characters."""
    words_only: bool = False
    """Write only tokens that are a space and letters."""
    no_stop_words: bool = False
    """Write no English stop word."""
    keep_stop_words: bool = False
    """Replace no token that is a part of a stop word of the clean prompt."""
    min_cosine: Annotated[float, pydantic.Field(ge=-1, le=1)] | None = None
    """The least cosine between the embeddings of a clean token and what replaces it."""
    max_changed: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    """The largest share of a prompt's tokens that flips may change."""
    reachable_only: bool = True
    """Choose only among prompts that some text encodes to: those that come back when
    they are decoded and encoded. Where not, any sequence of tokens may be sent to the
    model, which no user of it can do by a text."""

    @property
    def limit_flips(self) -> bool:
        """Whether they say anything of flips, besides which tokens are written."""
        return (
            self.keep_stop_words
            or self.min_cosine is not None
            or self.max_changed is not None
            or self.reachable_only
        )


def is_stop_word(text: str) -> bool:
    """Return whether a text is a stop word, spaces around it and case left aside."""
    return text.strip().lower().replace("\u2019", "'") in STOP_WORDS
