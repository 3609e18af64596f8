"""The embedded GPT beside `transformers` generating with the same model, in tokens a second.

Both answer the same prompt with the same number of tokens, greedily, in turns; a request's whole time counts. Of the
rounds the fastest counts, since only other programs slow us down, and `transformers` may choose its number of threads.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.row import Row
from kicourse.models import gpt

TOKENS = 64
ROUNDS = 4
PROMPT = "Write a long report about a pump that leaks oil, and about what the technician did."


def measure() -> list[Row]:
    """Measure both in one run."""
    import torch

    most = torch.get_num_threads()
    with gpt.running():
        embedded, with_transformers = _embedded(), _transformers()
        ours, theirs = [], []
        for turn in range(ROUNDS):
            torch.set_num_threads(most if turn % 2 else 1)
            ours.append(_tokens_per_second(embedded))
            theirs.append(_tokens_per_second(with_transformers))
    torch.set_num_threads(most)
    ratio = max(ours) / max(theirs)
    beside = f"transformers {max(theirs):.0f} tokens/s; {ratio:.1f} times as fast"
    return [Row("embedded GPT", f"{max(ours):.0f} tokens/s", beside, "4 times transformers or more")]


def _embedded() -> Callable[[], None]:
    from openai import OpenAI

    client = OpenAI()

    def generate() -> None:
        answer = client.chat.completions.create(
            model=gpt.MODEL,
            messages=[{"role": "user", "content": PROMPT}],
            temperature=0,
            max_tokens=TOKENS,
            extra_body={"ignore_eos": True, "cache_prompt": False},
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == TOKENS

    return generate


def _transformers() -> Callable[[], None]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(gpt.torch_path())
    model: Any = AutoModelForCausalLM.from_pretrained(gpt.torch_path())
    messages = [{"role": "user", "content": PROMPT}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")

    def generate() -> None:
        with torch.inference_mode():
            output = model.generate(**prompt, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
        assert output.shape[1] - prompt["input_ids"].shape[1] == TOKENS

    return generate


def _tokens_per_second(generate: Callable[[], None]) -> float:
    started = time.perf_counter()
    generate()
    return TOKENS / (time.perf_counter() - started)
