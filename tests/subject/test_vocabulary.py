import copy
import hashlib

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness import testing
from harness.base import CellError
from harness.subject.rules import TokenRules
from harness.subject.vocabulary import Vocabulary
from harness.testing import tiny_tokenizer

pytestmark = pytest.mark.transformers5


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(tiny_tokenizer(), rows=320)


def test_allowed_tokens_are_neither_holes_nor_special_nor_added_nor_broken(vocabulary):
    backend = tiny_tokenizer().backend_tokenizer
    texts = {i: backend.decode([i]) for i in range(320)}  # holes decode to nothing

    expected = [i for i, text in texts.items() if text and "\ufffd" not in text]

    assert vocabulary.allowed.tolist() == expected
    few = [i for i in expected if i < 100]  # rows of the embedding
    assert Vocabulary(tiny_tokenizer(), rows=100).allowed.tolist() == few
    assert len(expected) < len(tiny_tokenizer()) < 320
    assert tiny_tokenizer().eos_token_id not in expected
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["mat; the"])
    assert Vocabulary(tokenizer, rows=320).allowed.tolist() == expected


def word_tokenizer(*words):
    """Return a tokenizer that knows these words."""
    known = {word: i for i, word in enumerate(words)}
    model = models.WordLevel(known, unk_token=words[0])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


@pytest.fixture(scope="module")
def piece_tokenizer():
    """Return a tokenizer of SentencePiece's kind: spaces are a part of its pieces."""
    pieces = ["<unk>", "</s>", "\u2581", "\u2581the", "\u2581cat", "th", "e", "cat"]
    pieces += ["\u2581at", "\u2581é", "<0x0A>", "s", "\u2581a", "t", "'"]
    scores = [(piece, -float(len(pieces) - len(piece))) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    both = [decoders.ByteFallback(), decoders.Metaspace()]
    tokenizer.decoder = decoders.Sequence(both)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    )


def allowed(tokenizer, **rules):
    vocabulary = Vocabulary(tokenizer, len(tokenizer), TokenRules(**rules))
    return tokenizer.convert_ids_to_tokens(vocabulary.allowed.tolist())


def test_rules_leave_a_space_and_letters_and_no_stop_words(piece_tokenizer):
    """The space is told from the token itself: pieces lose it when decoded alone."""
    words = ["\u2581the", "\u2581cat", "\u2581at", "\u2581é", "\u2581a"]
    assert allowed(piece_tokenizer, words_only=True) == words
    ascii_words = ["\u2581the", "\u2581cat", "\u2581at", "\u2581a"]
    assert allowed(piece_tokenizer, words_only=True, ascii_only=True) == ascii_words
    kept = allowed(piece_tokenizer, words_only=True, no_stop_words=True)
    assert kept == ["\u2581cat", "\u2581é"]
    for token in allowed(tiny_tokenizer(), words_only=True):
        assert token[0] == "\u0120"
        assert token[1:].isascii()
        assert token[1:].isalpha()
    assert "\u0120cat" in allowed(tiny_tokenizer(), words_only=True)


def test_ascii_only_leaves_out_other_characters_and_not_all():
    tokenizer = word_tokenizer("a", "é", "b")
    assert allowed(tokenizer) == ["a", "é", "b"]
    assert allowed(tokenizer, ascii_only=True) == ["a", "b"]
    with pytest.raises(CellError, match="leave none of the tokenizer's 2 tokens"):
        allowed(word_tokenizer("é", "ü"), ascii_only=True)


def test_tokens_have_the_text_that_they_have_in_a_sentence(vocabulary, piece_tokenizer):
    text = " the cat's\n at"
    for known in (vocabulary, Vocabulary(piece_tokenizer, 15)):
        assert "".join(known.texts(known.encode(text))) == text
        assert known.texts(np.array([-1, 5000])) == ["\ufffd", "\ufffd"]


def test_every_token_of_a_stop_word_is_found_and_no_part_of_another_word(vocabulary):
    """``the`` in ``then`` or ``bathed`` is none, nor is ``at`` in ``cat``."""
    text = "The cat, bathed; it's theirs not thei r then"
    ids = vocabulary.encode(text)
    ends = np.cumsum([len(piece) for piece in vocabulary.texts(ids)])
    starts = [0, *ends[:-1]]
    stops = [(0, 3), (17, 21), (22, 28), (29, 32), (40, 44)]
    words = [text[first:last] for first, last in stops]
    assert words == ["The", "it's", "theirs", "not", "then"]
    assert len(ids) > len(text.split()) + 5  # words of several tokens

    assert vocabulary.stop_words(ids).tolist() == [
        any(first < end and start < last for first, last in stops)
        for start, end in zip(starts, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "opening", "closing"),
    [
        ("plain", [], []),
        ("opening", [0], []),
        ("closed", [], [0]),
        ("pieces", [], []),
    ],
)
def test_a_batch_of_prompts_is_judged_as_each_prompt_alone(
    kind, opening, closing, opened, piece_tokenizer
):
    """Against the tokenizer itself; what it puts around a text needs no text."""
    tokenizer = {
        "plain": tiny_tokenizer(),
        "opening": opened(tiny_tokenizer()),
        "closed": testing.tiny_tokenizer(closed=True),
        "pieces": piece_tokenizer,
    }[kind]
    known = Vocabulary(tokenizer, 15 if kind == "pieces" else 320)
    clean = known.encode(" the cat at the cat's")
    prompts = [clean[:n] for n in range(len(clean) + 1)]
    texts = dict(zip(known.allowed, known.texts(known.allowed), strict=True))
    often_merged = [i for i, text in texts.items() if set(text) <= set(" theca")]
    prompts += list(np.random.default_rng(0).choice(often_merged, (60, 3)))
    expected = [
        known.encode(known.decode(prompt)).tolist() == prompt.tolist()
        for prompt in prompts
    ]
    assert 10 < sum(expected) < len(expected)
    around = [np.concatenate([opening, ids, closing]).astype(int) for ids in prompts]

    assert (known.opening.tolist(), known.closing.tolist()) == (opening, closing)
    assert known.reachable(prompts) == expected
    assert known.reachable(around) == expected
    assert known.reachable(np.array(prompts[-60:])) == expected[-60:]
    no_tokens = [np.append(clean, i) for i in (len(tokenizer), -1)]
    assert known.reachable([clean, *no_tokens]) == [True, False, False]
    assert known.reachable([]) == []


def piece_of_words():
    """Return a tokenizer of WordPiece's kind."""
    pieces = ["[UNK]", "the", "cat", "##s", "##at", "a", "##t", "s", "."]
    known = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


@pytest.mark.parametrize("kind", ["bytes", "pieces", "words", "pythia", "t5"])
def test_any_ids_are_judged_as_the_tokenizer_alone_judges_them(
    kind, request, piece_tokenizer
):
    """Parts of characters, spaces, special strings written out, truncation set."""
    folders = {"pythia": "pythia-14m-standin", "t5": "t5-dialogue-standin"}
    if kind in folders:
        folder = request.getfixturevalue("shared") / "models" / folders[kind]
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:
        known = {"bytes": tiny_tokenizer(), "pieces": piece_tokenizer}
        tokenizer = known.get(kind) or piece_of_words()
    rng, size = np.random.default_rng(0), len(tokenizer)
    texts = ["the  cat\n s", " é ", "<|endoftext|>a", "</s> the", "##s", "\ufffd \xa0a"]
    texts += [tokenizer.decode([i]) for i in tokenizer.all_special_ids]
    encoded = [tokenizer(text, add_special_tokens=False) for text in texts]
    prompts = [ids for one in encoded if (ids := one["input_ids"])]
    prompts += rng.integers(0, size, (150, 2)).tolist()
    prompts += rng.integers(0, size, (50, 5)).tolist()
    prompts += rng.integers(0, min(size, 60), (50, 4)).tolist()
    closing = Vocabulary(tokenizer, size).closing.tolist()
    prompts = [ids for ids in prompts if not closing or ids[-1:] != closing]
    decoded = [
        tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        for ids in prompts
    ]
    expected = [
        tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        for text, ids in zip(decoded, prompts, strict=True)
    ]
    assert 5 < sum(expected) < len(expected) - 5
    tokenizer.backend_tokenizer.enable_truncation(1)

    found = Vocabulary(tokenizer, size).reachable([np.array(ids) for ids in prompts])

    assert found == expected


@pytest.mark.parametrize("opens", [False, True])
def test_changed_words_say_whether_a_prompt_is_still_reachable(
    opens, merging_tokenizer, opened
):
    """Of a byte-level tokenizer that cuts texts into words first, they say all."""
    tokenizer = opened(merging_tokenizer) if opens else merging_tokenizer
    known = Vocabulary(tokenizer, 26)
    clean = np.r_[known.opening, known.encode("abc dab b ca  dda bacd ab cadb dda ")]
    rng, first = np.random.default_rng(0), len(known.opening)
    prompts = np.tile(clean, (300, 1))
    for prompt in prompts:
        where = rng.choice(np.arange(first, len(clean)), rng.integers(1, 4), False)
        prompt[where] = rng.choice(known.allowed, len(where))
    changed = prompts != clean

    broken = known.broken_words(prompts, changed)

    reachable = np.array(known.reachable(prompts))
    assert 50 < reachable.sum() < 250
    assert (broken.any(axis=1) == ~reachable).all()
    texts = known.texts(np.arange(26))
    begins = np.array([text[:1] == " " and len(text) > 1 for text in texts])[prompts]
    begins[:, 0] = True
    inside = ~begins[:, 1:]
    assert (broken[:, 1:][inside] == broken[:, :-1][inside]).all()  # whole words
    assert broken.sum() < 0.5 * broken[broken.any(axis=1)].size  # and few of them
    assert not known.broken_words(prompts, np.zeros_like(changed)).any()


def test_words_are_tokens_that_begin_with_a_space(vocabulary):
    texts = vocabulary.texts(vocabulary.words(vocabulary.allowed))

    assert " cat" in texts
    assert all(text[0] == " " and text[1:].strip() for text in texts)
    assert vocabulary.words(vocabulary.encode("a")).tolist() == [
        *vocabulary.encode("a")
    ]


def test_hash_and_mask_are_of_the_allowed_ids(vocabulary):
    text = ",".join(str(i) for i in vocabulary.allowed.tolist())

    assert vocabulary.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert vocabulary.sha256 != Vocabulary(tiny_tokenizer(), rows=100).sha256
    assert vocabulary.mask().shape == (320,)
    assert np.flatnonzero(vocabulary.mask()).tolist() == vocabulary.allowed.tolist()


def test_encoding_adds_no_tokens(opened):
    vocabulary = Vocabulary(opened(tiny_tokenizer()), rows=320)

    assert vocabulary.encode("the cat")[0] != 0
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode(vocabulary.encode(" the  cat .")) == " the  cat ."


@pytest.fixture(scope="module")
def pythia(shared):
    return AutoTokenizer.from_pretrained(shared / "models/pythia-14m-standin")


def test_pythia_has_holes_and_runs_of_spaces_that_are_not_allowed(pythia):
    vocabulary = Vocabulary(pythia, rows=50304)

    assert len(pythia) == 50277
    assert not vocabulary.mask()[50277:].any()
    assert not vocabulary.mask()[50254:50277].any()  # added: runs of spaces
    assert not vocabulary.mask()[:2].any()  # <|endoftext|> and <|padding|>
    assert vocabulary.mask()[pythia.convert_tokens_to_ids("Ġthe")]
    assert vocabulary.reachable([vocabulary.encode("A mat,\n    a cat.")]) == [True]


def test_rules_on_the_tokenizer_of_pythia(pythia):
    plain = set(allowed(pythia))
    ascii_only = set(allowed(pythia, ascii_only=True))
    words = set(allowed(pythia, words_only=True, ascii_only=True))
    content = set(allowed(pythia, words_only=True, no_stop_words=True))

    assert words < ascii_only < plain
    assert plain - ascii_only > {"\u00c3\u00a9", "\u0120\u00c3\u00a9"}  # é
    assert words > {"\u0120the", "\u0120London", "\u0120The"}
    assert words.isdisjoint({"the", "\u01201", "\u0120(", "\u010a", "\u0120don't"})
    assert words - content > {"\u0120the", "\u0120The", "\u0120They"}
    assert "\u0120London" in content
