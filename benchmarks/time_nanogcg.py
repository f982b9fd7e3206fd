"""Time nanoGCG on the task from standard input; print what it found as JSON.

Times of steps are seconds since the call that took them all, their start included.

Started by attacks.py with the interpreter, or the packages, of nanoGCG's environment.
"""

import json
import sys
import time

import torch


def main():
    """Run it twice: a few steps that nobody times, and all of them."""
    import nanogcg
    import nanogcg.gcg
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work = json.load(sys.stdin)
    dtype = getattr(torch, work["dtype"])
    stamps = []
    model = AutoModelForCausalLM.from_pretrained(work["model"], torch_dtype=dtype)
    model = model.to(work["device"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"

    def stamped(steps):
        for step in steps:
            stamps.append(time.perf_counter())
            yield step
        stamps.append(time.perf_counter())

    nanogcg.gcg.tqdm = stamped  # its progress bar is what goes through the steps

    def run(steps):
        config = nanogcg.GCGConfig(
            num_steps=steps,
            search_width=work["width"],
            topk=256,
            batch_size=work["batch"],
            optim_str_init=work["start"],
            add_space_before_target=False,
            filter_ids=True,
            seed=0,
            verbosity="ERROR",
        )
        stamps.clear()
        messages = work["before"] + "{optim_str}"
        started = time.perf_counter()
        result = nanogcg.run(model, tokenizer, messages, work["target"], config)
        return result, [stamp - started for stamp in stamps[1:]]

    run(2)
    if work["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result, seconds = run(work["steps"])
    peak = torch.cuda.max_memory_allocated() if work["device"] == "cuda" else None
    answer = {
        "seconds_per_step": (seconds[-1] - seconds[0]) / (work["steps"] - 1),
        "seconds": seconds,
        "losses": result.losses,
        "best": result.best_string,
        "peak": peak,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
