"""The small things that plugins are tested with."""

import numpy as np

from harness.testing import (
    tiny_documents,
    tiny_examples,
    tiny_model,
    tiny_subject,
    tiny_tokenizer,
)


def test_every_family_has_a_model_and_seeds_differ(family):
    one, same, other = (tiny_model(family, seed=seed) for seed in (0, 0, 1))
    assert one.config.model_type == family
    weights = [m.get_input_embeddings().weight for m in (one, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_the_tokenizer_covers_any_text_and_leaves_rows_of_the_model_unused():
    tokenizer = tiny_tokenizer()
    text = "née ☃ <|endof"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) < tiny_model().config.vocab_size


def test_examples_are_of_equal_length_and_their_sets_share_no_document():
    sets = tiny_examples(3, prompt_tokens=5, reference_tokens=4)
    examples = [*sets.test, *sets.search, *sets.validation]
    assert len({example.document_id for example in examples}) == len(examples) == 9
    shapes = {(len(e.prompt_ids), len(e.reference_ids)) for e in examples}
    assert shapes == {(5, 4)}


def test_documents_depend_on_the_seed_alone():
    assert tiny_documents(2) == tiny_documents(3)[:2]
    assert tiny_documents(2) != tiny_documents(2, seed=1)


def test_an_untrained_subject_knows_about_nothing():
    example = tiny_examples(1).test[0]
    (loss,) = tiny_subject().exact_losses([example.prompt_ids], example.reference_ids)
    assert abs(loss - np.log(320)) < 2
