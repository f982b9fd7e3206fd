"""``harness describe``."""

import json


def test_it_prints_options_with_type_default_and_meaning(cli, example_plugin):
    outcome = cli("describe", "rotate", "--plugins", example_plugin)
    assert outcome.code == 0
    assert outcome.out == (
        "attack rotate: Rotate the prompt by some tokens.\n"
        "\n"
        "It needs no pass through the subject.\n"
        "\n"
        "options:\n"
        "  tokens = 1  (integer > 0, <= 8)\n"
        "      By how many tokens, at most 8.\n"
        '  direction = "left"  (left | right)\n'
        "      Which way.\n"
        "\n"
        "cost: What one example costs: nothing.\n"
        "\n"
        f"version unversioned, from {example_plugin}\n"
    )


def test_no_line_is_wider_than_a_terminal(cli):
    lines = cli("describe", "hotflip").out.splitlines()
    prose = lines[lines.index("options:") : -1]  # then the source, a path
    assert [line for line in prose if len(line) > 80] == []
    assert any("https://arxiv.org/abs/1712.06751" in line for line in prose)


def test_json_holds_the_same(cli, example_plugin):
    args = ("describe", "rotate", "--plugins", example_plugin, "--json")
    described = json.loads(cli(*args).out)
    assert described["kind"] == "attack"
    assert described["options"][0] == {
        "name": "tokens",
        "type": "integer > 0, <= 8",
        "required": False,
        "default": 1,
        "meaning": "By how many tokens, at most 8.",
    }


def test_an_unknown_name_is_an_error_with_the_nearest_match(cli, example_plugin):
    outcome = cli("describe", "rotat", "--plugins", example_plugin)
    assert outcome.code == 2
    assert "unknown plugin 'rotat'; did you mean 'rotate'?" in outcome.err


def test_a_name_of_two_kinds_needs_the_kind(cli, example_plugin, tmp_path):
    other = tmp_path / "metric.py"
    other.write_text(
        "from harness import hookimpl\n"
        "from harness.api.metrics import Metric\n"
        "class Rotation(Metric):\n"
        "    'Measures nothing.'\n"
        "    name = 'rotate'\n"
        "    measure = summarise = lambda *_: None\n"
        "register_metrics = hookimpl(lambda: [Rotation], specname='register_metrics')\n"
    )
    both = ("--plugins", example_plugin, "--plugins", other)
    outcome = cli("describe", "rotate", *both)
    assert outcome.code == 2
    assert "in several kinds (attack, metric): say --kind" in outcome.err
    outcome = cli("describe", "rotate", "--kind", "metric", *both)
    assert outcome.out.startswith("metric rotate: Measures nothing.\n\nno options\n")
