"""torch.compile for the sampler, with a way back: where compiling fails, the call goes on uncompiled."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch._dynamo.exc import TorchDynamoException

logger = logging.getLogger(__name__)

MAX_SHAPES = 64
"""Shapes of a call that get code of their own: batch sizes, with prompt lengths and with or without padding."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(
    function: Callable[Arguments, Result], *, backend: str | Callable = "inductor"
) -> Callable[Arguments, Result]:
    """Returns `function`, compiled at its first call; if compiling fails, that and all later calls run it as it is.

    Args:
        function: Must give the same result when it is called again with the same arguments.
        backend: Of torch.compile.
    """
    # Beyond torch's default of 8 all calls would run uncompiled, without a word.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_SHAPES)
    fast = torch.compile(function, backend=backend, dynamic=False)
    is_broken = False

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal is_broken
        if is_broken:
            return function(*args, **kwargs)
        try:
            return fast(*args, **kwargs)
        except TorchDynamoException as exc:
            is_broken = True
            logger.warning("Compiling the policy failed; it acts uncompiled, with the same results: %s", exc)
            return function(*args, **kwargs)

    return call
