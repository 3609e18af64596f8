"""Helper code that runs on the answer's side, where the real objects are.

A probe gets the object behind the handle first, then the arguments. It returns data (`handle.probe`), or an object
that stays on the answer's side (`handle.build`). What a probe reports about an answer can be forged by the answer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

PROBES: dict[str, Callable[..., Any]] = {}
LATE = "x-trial-late"
"""The header of a reply that comes too late: the client, which need not really wait, raises its timeout."""


def probe(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a probe under its own name."""
    PROBES[function.__name__] = function
    return function


@probe
def openai_client(_answer: Any, base_url: str, **options: Any) -> Any:
    """Build a real OpenAI client that talks to `base_url`, by default without retries of its own."""
    from openai import DefaultHttpxClient, OpenAI

    # The server is on this machine: no certificates to load (20 ms a client), no proxy to go through.
    local = DefaultHttpxClient(verify=False, trust_env=False, event_hooks={"response": [_time_out]})
    settings: dict[str, Any] = {"max_retries": 0, "timeout": 30, "http_client": local} | options
    return OpenAI(base_url=base_url, api_key="trial", **settings)


def _time_out(response: Any) -> None:
    if LATE in response.headers:
        import httpx  # all of it: which takes a tenth of a second

        raise httpx.ReadTimeout("timed out", request=response.request)


@probe
def completion_usage(_answer: Any, fields: dict[str, Any]) -> Any:
    """Build the `usage` object of a chat completion."""
    from openai.types import CompletionUsage

    return CompletionUsage.model_validate(fields)


@probe
def pydantic_model(_answer: Any, name: str, fields: dict[str, tuple[str, dict[str, Any]]]) -> Any:
    """Build a pydantic model; each field is given as the name of its type ("str", "int") and its constraints."""
    from pydantic import ConfigDict, Field, create_model

    kinds = {"str": str, "int": int}
    definitions: dict[str, Any] = {
        field: (kinds[kind], Field(**constraints)) for field, (kind, constraints) in fields.items()
    }
    return create_model(name, __config__=ConfigDict(extra="forbid"), **definitions)


@probe
def provider(_answer: Any, name: str, base_url: str, model: str, **options: Any) -> Any:
    """Build a provider: its name, a real client that talks to `base_url`, and the model to ask for."""
    return _Provider(name, openai_client(_answer, base_url, **options), model)


class _Provider(NamedTuple):
    name: str
    client: Any
    model: str


@probe
def jobs(_answer: Any, *args: Any, **kwargs: Any) -> Any:
    """Build a list of asynchronous jobs (see answers/jobs.py)."""
    from kicourse.answers.jobs import Jobs

    return Jobs(*args, **kwargs).as_list()


@probe
def cancel(answer: Any, limit: int, cancelling: Any, over: Any, *args: Any, **kwargs: Any) -> None:
    """Have the answer run jobs, and cancel it on the way (see answers/jobs.py)."""
    from kicourse.answers import jobs as tools

    tools.cancel(answer, tools.Jobs(*args, **kwargs), limit, cancelling, over)


@probe
def run_within(answer: Any, seconds: float, limit: int, *args: Any, **kwargs: Any) -> Any:
    """Have the answer run jobs, and describe what it returns; None if it does not end (see answers/jobs.py)."""
    from kicourse.answers import jobs as tools

    return tools.run_within(answer, tools.Jobs(*args, **kwargs), limit, seconds)


@probe
def described(results: Any) -> list[list[Any]]:
    """A list that may hold exceptions, as data: ["value", x] or ["exception", type name, text] for each."""
    from kicourse.answers import jobs as tools

    return tools.described(results)


@probe
def function(_answer: Any, name: str, source: str, **given: Any) -> Any:
    """Build the function `name` from its source, as a notebook would define it; it may use the names in `given`.

    Its lines are not the learner's: what they raise is shown where the learner's code called it.
    """
    namespace = {"__name__": "__main__", **given}
    exec(compile(source, f"<string: {name}>", "exec"), namespace)
    return namespace[name]


@probe
def state_dict(module: Any) -> dict[str, Any]:
    """The weights of a torch module, by name, each a tensor of its own."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@probe
def load_state_dict(module: Any, weights: dict[str, Any]) -> None:
    """Write weights into a torch module; the names must match."""
    module.load_state_dict(weights)


@probe
def evaluate(module: Any, *inputs: Any) -> Any:
    """Run a torch module forward, in evaluation mode and without gradients."""
    import torch

    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return module(*inputs)
    finally:
        module.train(was_training)


@probe
def parameter_gradients(module: Any, x: Any, weights: Any) -> dict[str, Any]:
    """The gradient of sum(weights * module(x)) with respect to each parameter, by name; zero where there is none."""
    import torch

    module.zero_grad()
    total = (module(x) * weights).sum()
    if total.requires_grad:
        total.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in module.named_parameters()
    }
    module.zero_grad()
    return gradients


@probe
def parameters(module: Any) -> dict[str, Any]:
    """The trainable tensors of a torch module, by name, each a tensor of its own."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@probe
def set_parameters(module: Any, values: dict[str, Any]) -> None:
    """Write values into parameters of a torch module, by name; the others stay."""
    import torch

    known = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            known[name].copy_(value)


@probe
def training(_answer: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Build something that answers/training.py offers: a small model, optimizers that take notes, a generator."""
    from kicourse.answers import training as tools

    return getattr(tools, name)(*args, **kwargs)


@probe
def web(answer: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Do what answers/web.py offers: build apps and what stands behind them, read a counter."""
    from kicourse.answers import web as tools

    return getattr(tools, name)(answer, *args, **kwargs)


@probe
def serve(app: Any, backend: Any, exchange: Callable[..., Any], at_once: Callable[..., Any], patience: float) -> None:
    """Serve an app to clients whom the check leads (see `web.Server`)."""
    from kicourse.answers.web import serve

    serve(app, backend, exchange, at_once, patience)
