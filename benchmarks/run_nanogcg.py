"""Run nanoGCG on prompts from standard input; print dL against cost as JSON.

It is started by curves.py with the interpreter of nanoGCG's own environment. nanoGCG
makes a target likely; the sign of its loss is turned here, so that it makes the
reference unlikely, which is what it is compared on.
"""

import json
import logging
import sys

import torch

WIDTH = 64


def main():
    """Attack each prompt with all of its tokens but the first free."""
    plain = torch.nn.functional.cross_entropy
    torch.nn.functional.cross_entropy = lambda *a, **k: -plain(*a, **k)

    import nanogcg
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    work = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(
        work["model"], torch_dtype=torch.float32
    )
    model = model.to(work["device"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    per_step = WIDTH + work["gradient"]
    config = nanogcg.GCGConfig(
        num_steps=max(1, int(work["passes"] / per_step)),
        search_width=WIDTH,
        add_space_before_target=False,
        seed=0,
        verbosity="ERROR",
    )
    answers = []
    for prompt, target in zip(work["prompts"], work["targets"], strict=True):
        # nanoGCG needs something before the tokens it writes: the first one stays.
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        first, config.optim_str_init = (tokenizer.decode(x) for x in (ids[:1], ids[1:]))
        clean = loss(model, tokenizer, prompt, target)
        try:
            result = nanogcg.run(
                model, tokenizer, f"{first}{{optim_str}}", target, config
            )
            found = [(i * per_step, -v - clean) for i, v in enumerate(result.losses, 1)]
        except RuntimeError as error:  # it found no candidate that is a text's encoding
            print(f"nanoGCG: {error}", file=sys.stderr)
            found = []
        answers.append(found)
    print(json.dumps(answers))


def loss(model, tokenizer, prompt, target):
    """Return the mean loss of a target after a prompt, with plain transformers."""
    before, after = (
        tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        for text in (prompt, target)
    )
    before, after = before.to(model.device), after.to(model.device)
    with torch.no_grad():
        logits = model(torch.cat([before, after], 1)).logits[
            0, before.shape[1] - 1 : -1
        ]
    return torch.nn.CrossEntropyLoss()(logits, after[0]).abs().item()


if __name__ == "__main__":
    main()
