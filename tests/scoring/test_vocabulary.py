import hashlib

import numpy as np
import pytest

from harness import testing
from harness.scoring.vocabulary import Vocabulary, opening_ids

pytestmark = pytest.mark.transformers5


@pytest.fixture(scope="module")
def vocabulary(tiny_tokenizer):
    return Vocabulary(tiny_tokenizer, rows=320)


@pytest.fixture(scope="module")
def opening_tokenizer(tiny_tokenizer):
    """Return a tokenizer that opens every text with a token, as OPT's does."""
    import copy

    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


def test_allowed_tokens_are_neither_holes_nor_special_nor_parts_of_a_character(
    vocabulary, tiny_tokenizer
):
    backend = tiny_tokenizer.backend_tokenizer
    texts = {i: backend.decode([i]) for i in range(320)}  # holes decode to nothing

    expected = [i for i, text in texts.items() if text and "\ufffd" not in text]

    assert vocabulary.allowed.tolist() == expected
    assert len(expected) < len(tiny_tokenizer) < 320
    assert tiny_tokenizer.eos_token_id not in expected


def test_no_token_beyond_the_embedding_is_allowed(tiny_tokenizer):
    assert Vocabulary(tiny_tokenizer, rows=100).allowed.max() < 100


def test_added_tokens_are_not_allowed(tiny_tokenizer):
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["mat; the"])
    added = tokenizer.convert_tokens_to_ids("mat; the")

    assert added not in Vocabulary(tokenizer, rows=320).allowed


def test_ascii_only_leaves_out_other_characters():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"a": 0, "é": 1, "b": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a"))
    )

    assert Vocabulary(tokenizer, 3).allowed.tolist() == [0, 1, 2]
    assert Vocabulary(tokenizer, 3, ascii_only=True).allowed.tolist() == [0, 2]


def test_the_hash_identifies_the_allowed_ids(vocabulary, tiny_tokenizer):
    text = ",".join(str(i) for i in vocabulary.allowed.tolist())

    assert vocabulary.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert vocabulary.sha256 != Vocabulary(tiny_tokenizer, rows=100).sha256


def test_the_mask_is_true_at_the_allowed_ids_alone(vocabulary):
    mask = vocabulary.mask()

    assert mask.shape == (320,)
    assert np.flatnonzero(mask).tolist() == vocabulary.allowed.tolist()


def test_encoding_adds_no_tokens(opening_tokenizer):
    vocabulary = Vocabulary(opening_tokenizer, rows=320)

    assert vocabulary.encode("the cat")[0] != 0
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode(vocabulary.encode(" the  cat .")) == " the  cat ."


def test_encoded_text_is_reachable(vocabulary):
    assert vocabulary.reachable([vocabulary.encode("the cat sat on the mat")]) == [True]


def test_ids_that_would_merge_are_unreachable(vocabulary):
    whole = vocabulary.encode("the")
    letters = np.concatenate([vocabulary.encode(c) for c in "the"])
    assert len(whole) < len(letters)

    assert vocabulary.reachable([letters]) == [False]


def test_a_prompt_is_unreachable_if_only_its_context_breaks_it(vocabulary):
    """Each half survives decoding and encoding on its own; together they merge."""
    left, right = vocabulary.encode("the ca"), vocabulary.encode("t sat")
    assert vocabulary.reachable([left, right]) == [True, True]

    assert vocabulary.reachable([np.concatenate([left, right])]) == [False]


def test_equally_many_other_ids_are_not_the_same_ids(vocabulary):
    """A comparison of lengths alone would let these pass."""
    tokens = vocabulary.allowed.tolist()
    pairs = (np.array([a, b]) for a in tokens for b in tokens)
    again = ((ids, vocabulary.encode(vocabulary.decode(ids))) for ids in pairs)
    ids = next(p for p, q in again if len(q) == 2 and p.tolist() != q.tolist())

    assert vocabulary.reachable([ids]) == [False]


def test_what_the_tokenizer_puts_last_needs_no_text():
    vocabulary = Vocabulary(testing.tiny_tokenizer(closed=True), rows=320)
    ids = vocabulary.encode("the cat")

    assert (vocabulary.opening.tolist(), vocabulary.closing.tolist()) == ([], [0])
    assert vocabulary.reachable([np.append(ids, 0), ids]) == [True, True]
    letters = np.concatenate([vocabulary.encode(c) for c in "the"])
    assert vocabulary.reachable([np.append(letters, 0)]) == [False]


def test_ids_that_are_no_token_are_unreachable(vocabulary, tiny_tokenizer):
    assert vocabulary.reachable([np.array([len(tiny_tokenizer)])]) == [False]


def test_the_opening_token_needs_no_text(opening_tokenizer):
    vocabulary = Vocabulary(opening_tokenizer, rows=320)
    body = vocabulary.encode("the cat")
    opened = np.concatenate([[0], body])

    assert vocabulary.opening.tolist() == [0]
    assert vocabulary.reachable([opened, body]) == [True, True]


def test_most_tokenizers_open_with_nothing(tiny_tokenizer):
    assert opening_ids(tiny_tokenizer).tolist() == []


def test_pythia_has_holes_and_runs_of_spaces_that_are_not_allowed(shared):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models/pythia-14m-standin")
    vocabulary = Vocabulary(tokenizer, rows=50304)

    assert len(tokenizer) == 50277
    assert not vocabulary.mask()[50277:].any()
    assert not vocabulary.mask()[50254:50277].any()  # added: runs of spaces
    assert not vocabulary.mask()[:2].any()  # <|endoftext|> and <|padding|>
    assert vocabulary.mask()[tokenizer.convert_tokens_to_ids("Ġthe")]
    assert vocabulary.reachable([vocabulary.encode("A mat,\n    a cat.")]) == [True]
