"""Building live PyTorch modules on the meta device: names and shapes, no weights, no memory.

A spec is `litgpt`, `porter`, `transformers`, or `package.module:callable` (a file's path may stand for the
module). A callable is called with the target's config if it takes an argument; it returns a module.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from porter.config.raw import GENERATION
from porter.errors import PorterError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

Builder = Callable[[Mapping[str, Any]], "torch.nn.Module"]

_EXTRAS = {"litgpt": "litgpt", "transformers": "transformers"}


@dataclass(frozen=True)
class Expected:
    """What a module's strict load asks for: shapes by name, and which names share one parameter."""

    shapes: Mapping[str, tuple[int, ...]]
    shared: Mapping[str, frozenset[str]]


def expected_tensors(spec: str, config: Mapping[str, Any]) -> Expected:
    """Build the module that `spec` names for this config, on meta. Raises UsageError or UnsupportedError."""
    import torch

    builder = _builder(spec)
    try:
        with torch.device("meta"):
            module = builder(config)
    except PorterError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"{spec} cannot build a model from the target's config",
            cause=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{spec} gave no torch.nn.Module", cause=f"found {type(module).__name__}")
    return read_module(module)


def read_module(module: torch.nn.Module) -> Expected:
    """Names and shapes of a module's state dict as it is stored, and the names that share one parameter."""
    state = _stored_names(module, module.state_dict(keep_vars=True))
    groups: dict[int, set[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), set()).add(name)
    return Expected(
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        shared={name: frozenset(groups[id(tensor)]) for name, tensor in state.items()},
    )


def _stored_names(module: torch.nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 renames some weights as it loads them (GPT-NeoX's `embed_out` is `lm_head` in memory);
    a checkpoint holds the names from before, which its own function gives back."""
    if not type(module).__module__.startswith("transformers."):
        return state
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        # transformers 4 loads the names that it stores.
        return state
    revert: Callable[[Any, dict[str, Any]], dict[str, Any]] = revert_weight_conversion
    return revert(module, state)


def _builder(spec: str) -> Builder:
    known: dict[str, Builder] = {"litgpt": _litgpt, "porter": _porter, "transformers": _transformers}
    if spec in known:
        return known[spec]
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(
            f"{spec!r} names no target model",
            hint="litgpt, porter, transformers, or package.module:callable",
        )
    found = getattr(_module(place), name, None)
    if not callable(found):
        raise UsageError(f"{place} has no callable {name!r}")

    def build(config: Mapping[str, Any]) -> torch.nn.Module:
        takes = [
            parameter
            for parameter in inspect.signature(found).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        made: torch.nn.Module = found(config) if takes else found()
        return made

    return build


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise UsageError(f"there is no Python file at {place}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        with _no_bytecode():
            spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())
    if here not in sys.path:
        # A module beside the user is found, but takes the place of none that is installed.
        sys.path.append(here)
    try:
        with _no_bytecode():
            return importlib.import_module(place)
    except ImportError as error:
        raise UsageError(f"cannot import {place}", cause=str(error)) from None


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Nothing is written beside a user's code: no `__pycache__`."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _litgpt(config: Mapping[str, Any]) -> torch.nn.Module:
    with needs("litgpt"):
        from litgpt.config import Config
        from litgpt.model import GPT
    module: torch.nn.Module = GPT(Config(**_own(config)))
    return module


def _transformers(config: Mapping[str, Any]) -> torch.nn.Module:
    with needs("transformers"):
        from transformers import AutoConfig, AutoModelForCausalLM
    rest = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    built = AutoConfig.for_model(config["model_type"], **rest)
    make: Callable[[Any], torch.nn.Module] = AutoModelForCausalLM.from_config
    return make(built)


def _porter(config: Mapping[str, Any]) -> torch.nn.Module:
    from porter.models import GPT, Config

    return GPT(Config.from_mapping(_own(config)))


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Token ids for generation stand in a file of their own."""
    return {key: value for key, value in config.items() if key != GENERATION}


class needs:
    """Turns a missing package into an error that says what to install."""

    def __init__(self, package: str) -> None:
        self.package = package

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImportError):
            raise UsageError(
                f"{self.package} is not installed",
                cause=str(error),
                hint=f"pip install {_EXTRAS[self.package]}",
            ) from None
