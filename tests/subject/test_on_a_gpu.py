"""What only a GPU does: compiled layers, kernels of ours, recorded passes.

Run by name, on a machine that has one: pytest -m accelerator
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness.subject.fast.packing import Packing
from harness.subject.fast.recording import SEEN_BEFORE_CAPTURE, Recorded
from harness.subject.rounding import MARGIN_NATS, rounding_margin
from harness.subject.scheduler import Ask, Lanes, Place, Slopes
from harness.subject.subject import Subject
from harness.subject.transfer import fetched, reached, sent
from harness.testing import tiny_examples, tiny_model, tiny_tokenizer
from harness_plugins.attacks.hotflip import HotFlip
from tests.subject.plain import candidates, on_gpu, random_ids as ids

pytestmark = [
    pytest.mark.accelerator,
    on_gpu,
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of itself
]

N, M = 90, 70
"""More than a block of the kernel's, and no multiple of one."""


def changed(prompt, count, seed=0):
    """Return copies that differ from a prompt in one token, the last ones late."""
    prompts = candidates(prompt, count, seed, changes=1)
    return prompts[np.argsort((prompts != prompt).argmax(axis=1))]


def wide_subject(family="gpt_neox", device="cuda", **options):
    """Return a subject whose head sizes our kernel holds, with weights as bfloat16's.

    They are smaller than a tiny model's, so that it rounds as real ones do.
    """
    sizes = {"hidden_size": 64, "max_position_embeddings": 256}
    if family == "opt":
        sizes["word_embed_proj_dim"] = 64
    model = tiny_model(family, **sizes)
    for parameter in model.parameters():
        smaller = parameter.data * (0.3 if parameter.dim() > 1 else 1)
        parameter.data = smaller.bfloat16().float()
    return Subject(model, tiny_tokenizer(), device=device, **options)


@pytest.mark.parametrize("rows", [None, [1, 0, 1, 1, 0]])
@pytest.mark.parametrize("starts", [[37, 0, 36, 64, 1], [100] * 5])
@pytest.mark.parametrize("size", [32, 80])
def test_the_kernel_attends_as_plain_attention_does(rows, starts, size):
    from harness.subject.fast.flash import attend_packed

    torch.manual_seed(0)
    whole, heads = 104, 4
    prefix = torch.randn(2, 2, heads, 101, size, device="cuda").bfloat16()
    own = [torch.randn(3, heads, whole - s, size, device="cuda") for s in starts]
    own = [part.bfloat16() for part in own]
    packing = Packing.of(torch.zeros(5, whole, device="cuda"), starts)
    chosen = None if rows is None else torch.tensor(rows, device="cuda")

    found = attend_packed(
        *torch.cat(own, dim=2)[:, None],
        *prefix,
        chosen,
        packing.starts,
        packing.first,
        whole,
        0.2,
    )[0].split([whole - s for s in starts])

    for row, start, states, one in zip(
        rows or [0] * 5, starts, own, found, strict=True
    ):
        query, key, value = states.float()
        before = prefix[:, row, :, :start].float()
        keys, values = (
            torch.cat([part, mine], dim=1)
            for part, mine in zip(before, (key, value), strict=True)
        )
        mask = torch.ones(whole - start, whole, device="cuda").tril(start).bool()
        expected = scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=0.2
        )
        torch.testing.assert_close(
            one.float(), expected.transpose(0, 1), rtol=0, atol=2e-2
        )


@pytest.mark.parametrize("turned", [8, 32])
def test_queries_and_keys_are_turned_as_by_transformers(turned):
    from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

    from harness.subject.fast.flash import turn

    torch.manual_seed(0)
    states = torch.randn(3, 50, 4, 96, device="cuda")
    angles = torch.rand(50, turned // 2, device="cuda").repeat(1, 2) * 6
    cos, sin = angles.cos(), angles.sin()
    query, key, value = states.transpose(1, 2).clone().chunk(3, dim=-1)
    expected = apply_rotary_pos_emb(query, key, cos[None], sin[None])

    turn(states, cos, sin)

    found = states.transpose(1, 2).chunk(3, dim=-1)
    for one, other in zip(found, (*expected, value), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "opt", "gpt_neo"])
def test_a_search_in_bfloat16_is_near_plain_float32(family):
    fast = wide_subject(family, dtype="bfloat16")
    # Many candidates of two prompts: prefixes of both are read once, and reused.
    prompts = np.concatenate([changed(ids(N, seed=s), 64, seed=s) for s in range(2)])
    references = [ids(M, seed=i // 64) for i in range(128)]

    for _ in range(SEEN_BEFORE_CAPTURE + 2):  # from some on, passes are recorded
        losses = fast.losses(prompts, references)
        exact = fast.exact_losses(prompts[::16], references[::16])
        np.testing.assert_allclose(losses[::16], exact, rtol=0, atol=0.02)
    assert fast.settings["reuses_prefixes"]
    if family == "gpt_neox":
        assert fast.settings["compiled"]
        assert fast.settings["compiled_gradients"]
        assert fast.settings["fused_layers"]


def test_rounding_in_bfloat16_stays_within_its_margin():
    prompts, reference = changed(ids(N), 256), ids(M)
    found = []
    for size in (256, 7):
        subject = wide_subject(dtype="bfloat16", batch_size=size)
        found.append(subject.losses(prompts, reference))
        best = subject.best(prompts, reference, found[-1])
        exact = subject.exact_losses(prompts, reference)
        assert exact[best] == pytest.approx(exact.max(), abs=MARGIN_NATS)

    assert np.abs(found[0] - found[1]).max() < rounding_margin("bfloat16", M)


def test_neither_company_nor_place_nor_recording_changes_a_bit_of_what_decides():
    subject = wide_subject(dtype="bfloat16")
    prompts, references = changed(ids(N), 40), [ids(M, seed=i) for i in range(40)]
    pairs = list(zip(prompts, references, strict=True))
    decide = subject._passes.deciding_losses
    (alone,) = decide(pairs[:1])()
    assert alone == pytest.approx(
        subject.exact_losses(prompts[:1], references[:1])[0], abs=MARGIN_NATS
    )
    rng = np.random.default_rng(2)

    # The first calls are not recorded; a shape that comes back is.
    for place in (0, 1, 5, 15, 16, 31, 33):
        others = rng.integers(1, 40, size=34).tolist()
        others[place] = 0
        assert decide([pairs[i] for i in others])()[place] == alone


def test_a_steady_loss_is_the_same_to_the_last_bit_in_every_company():
    subject = wide_subject(dtype="bfloat16")
    if not subject.settings["steady_losses"]:
        pytest.skip("products of this GPU depend on how many rows they have")
    # Eight prompts with candidates: some calls share prefixes, and others do not.
    prompts = np.concatenate([changed(ids(N, seed=s), 64, seed=s) for s in range(8)])
    references = [ids(M, seed=i // 64) for i in range(512)]
    together = subject.losses(prompts, references)

    order = np.random.default_rng(0).permutation(512)
    for count, rows in ((512, order), (200, order), (7, order[:70]), (1, order[:9])):
        for own in np.split(rows, range(count, len(rows), count)):
            found = subject.losses(prompts[own], [references[i] for i in own])
            np.testing.assert_array_equal(found, together[own])
    for size in (3, 1):  # passes after a prefix: those of one row are filled up
        subject.batch_size = size
        np.testing.assert_array_equal(subject.losses(prompts, references), together)


def test_keys_come_in_the_same_blocks_after_any_prefix():
    from harness.subject.fast.flash import attend_packed

    torch.manual_seed(0)
    whole, states = 104, torch.randn(3, 1, 4, 104, 64, device="cuda").bfloat16()
    ids = torch.zeros(1, whole, device="cuda")

    def attended(start):
        packing = Packing.of(ids, [start])
        own = (part[:, :, start:].contiguous() for part in states)
        prefix = (part[:, :, :101] for part in states[1:])
        where = packing.starts, packing.first, whole, 0.2
        return attend_packed(*own, *prefix, None, *where)[0]

    packing = Packing.entire(ids)
    where = packing.starts, packing.first, whole, 0.2
    alone = attend_packed(*states, None, None, None, *where)[0]
    for start in (0, 1, 31, 32, 33, 64, 100):
        assert torch.equal(attended(start), alone[start:])


def test_what_decides_is_compiled_and_what_is_reported_stays_plain():
    subject, plain = wide_subject(dtype="bfloat16"), wide_subject(dtype="float32")
    prompts, reference = changed(ids(N), 20), ids(M)
    subject._passes.deciding_losses([(prompt, reference) for prompt in prompts])()

    assert subject._passes.deciding.settings["compiled"]
    assert not subject._passes.exact.settings["compiled"]
    np.testing.assert_array_equal(
        subject.exact_losses(prompts, reference), plain.exact_losses(prompts, reference)
    )


def test_recorded_passes_say_what_unrecorded_ones_do():
    weight = torch.randn(30, 30, device="cuda")

    def compute(left, right):
        return [left @ weight, (left @ weight + right).relu()]

    recorded = Recorded(compute)
    for seed in range(2 * SEEN_BEFORE_CAPTURE + 2):
        torch.manual_seed(seed)
        given = torch.randn(2, 7, 30, device="cuda").unbind()
        for one, other in zip(recorded(*given), compute(*given), strict=True):
            assert torch.equal(one, other)


@pytest.fixture
def matmul():
    """The settings of matrix products, as they were again afterwards."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    yield settings
    settings.allow_tf32 = before


def test_what_was_recorded_in_tf32_is_not_replayed_in_float32(matmul):
    weight = torch.randn(256, 256, device="cuda")
    recorded = Recorded(lambda states: [states @ weight])
    states = torch.randn(64, 256, device="cuda")
    products = []
    for tf32 in (True, False):
        matmul.allow_tf32 = tf32
        for _ in range(SEEN_BEFORE_CAPTURE + 2):
            products.append(recorded(states)[0].clone())
        assert torch.equal(products[-1], states @ weight)

    assert not torch.equal(products[0], products[-1])


def test_gradients_in_bfloat16_point_where_those_in_float32_do():
    fast, slow = wide_subject(dtype="bfloat16"), wide_subject(device="cpu")
    assert fast.settings["compiled_gradients"]
    for seed in range(2 * SEEN_BEFORE_CAPTURE):
        prompt, reference = ids(N, seed=seed), ids(M, seed=seed + 1)
        (found,) = fast.gradients([prompt], reference)
        (expected,) = slow.gradients([prompt], reference)
        pair = found.cpu().flatten(), expected.flatten()
        assert torch.cosine_similarity(*pair, dim=0) > 0.99
    assert fast.settings["compiled_gradients"]  # no compiler has failed


def test_searches_side_by_side_find_what_each_does_alone():
    sets = ExampleSets(tiny_examples(12, prompt_tokens=12).test)
    plugin = HotFlip(HotFlip.Options(flips=3, candidates=24))
    found = []
    for lanes in (Lanes(8, 2, 3, ahead=3), Lanes(1)):
        subject = wide_subject(dtype="bfloat16")
        subject._passes.lanes = lanes
        results = plugin.run(subject, sets, AttackContext("cell"))
        found.append({one.example_id: one for one in results})

    for name, one in found[0].items():
        assert one.prompt_ids.tolist() == found[1][name].prompt_ids.tolist()


def test_what_is_sent_and_fetched_is_not_overwritten_while_it_waits():
    device = torch.device("cuda")
    busy = torch.randn(4096, 4096, device=device)
    arrays = [np.full((64, 1000), i) for i in range(50)]
    fetches = []
    for array in arrays:  # all pinned memory is in use before the first is read
        busy = busy @ busy * 1e-3
        [sent_array] = sent(device, array)
        fetches.append(fetched(sent_array + 1))

    for array, fetch in zip(arrays, fetches, strict=True):
        np.testing.assert_array_equal(fetch(), array + 1)


def test_norms_of_a_gradient_depend_on_nothing_but_itself():
    subject = wide_subject(dtype="bfloat16")
    gradients = [torch.randn(n, 64, device="cuda") for n in (7, 700, 64, 1200)]

    together = subject.launched(Ask.NORMS, gradients)()

    for gradient, found in zip(gradients, together, strict=True):
        [alone] = subject.launched(Ask.NORMS, [gradient])()
        np.testing.assert_array_equal(alone, found)
        expected = np.linalg.norm(gradient.double().cpu().numpy(), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_is_computed_aside_waits_for_no_pass():
    subject = wide_subject()
    busy = torch.randn(8192, 8192, device="cuda")
    asked = {
        Ask.TOKENS: [Place(3, torch.ones(64, device="cuda"), 4, True)],
        Ask.FLIPS: [Slopes(ids(5), np.arange(2, 7), torch.ones(9, 64).cuda(), 4)],
    }
    # What is asked for first is compiled and cached.
    expected = {ask: subject.launched(ask, one)() for ask, one in asked.items()}
    for _ in range(50):
        busy @ busy
    done = reached(torch.device("cuda"))
    found = {ask: subject.launched(ask, one)() for ask, one in asked.items()}
    behind = torch.cuda.current_stream().query()
    done()

    assert not behind
    for ask, [one] in expected.items():
        np.testing.assert_array_equal(np.array(one), np.array(found[ask][0]))


def test_the_best_flips_are_those_that_a_cpu_finds():
    fast, slow = wide_subject(dtype="bfloat16"), wide_subject(device="cpu")
    torch.manual_seed(0)
    gradients = torch.randn(40, 30, 64)
    asked = [
        Slopes(ids(9, seed=i), np.arange(i % 20, i % 20 + 9), gradient, 12)
        for i, gradient in enumerate(gradients)
    ]
    there = [one._replace(gradient=one.gradient.cuda()) for one in asked]

    found, expected = (
        fast.launched(Ask.FLIPS, there)(),
        slow.launched(Ask.FLIPS, asked)(),
    )

    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_allclose(one.gains, other.gains, rtol=1e-4, atol=1e-6)
