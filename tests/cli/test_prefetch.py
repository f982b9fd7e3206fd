"""``harness prefetch``."""


def test_local_things_are_here_already(cli, suite, save_model):
    save_model()
    outcome = cli("prefetch", suite)
    assert (outcome.code, outcome.out) == (
        0,
        f"all that {suite} needs is on this machine\n",
    )
    assert "fetching models.tiny\nfetching corpora.topics\n" in outcome.err


def test_what_cannot_be_fetched_is_named_and_the_rest_is_tried(cli, suite):
    text = suite.read_text().replace("./model", "some-group/some-model")
    suite.write_text(text)
    outcome = cli("prefetch", suite)
    assert outcome.code == 2
    assert "fetching corpora.topics" in outcome.err
    assert "still not on this machine:\n  models.tiny: " in outcome.err
    assert "some-group/some-model" in outcome.err
