"""Mutants of the tables, made from their rules: every mistake that fits, which only the logits can show.

A model whose sizes are equal wherever they can be hides what shapes tell apart. In the dialect that is
written, one at a time: two axes of a rule change places, or two stored dims, or two blocks of one size, or
two canonical tensors over the same axes (gate and up, k and v, each pair of norms). A mutant dies where
porter or the framework refuses it, or where the logits change. Run as a script: all of them, of every family
and variant.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import porter
from porter.api.opening import open_source
from porter.errors import PorterError
from porter.execution.state_dict import StateDict
from porter.layout import Layout, bind
from porter.layout.parse import Axis, Dim, Group
from porter.planning.build import build_plan
from porter.planning.plan_options import PlanOptions
from porter.planning.ties import ties_in_force
from porter.tables.bind import Sizes, bind_rules
from porter.tables.model import FILLERS, Canonical, Dialect, Rule

# Right tables agree to 2e-6 of the largest logit, in float32; a mutant has to stand out by 500 times that.
BOUND = 2e-6
APART = 1e-3
TOKENS = 48
WIDE = 64
# What `make test` runs of each family and dialect.
SAMPLE = 3


@dataclass(frozen=True)
class Mutant:
    """A dialect with one mistake. `same` says why it is the same model, where it is: no mistake, then."""

    what: str
    dialect: Dialect
    same: str | None


def square(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config with equal sizes: all widths and the vocabulary; kv heads, their queries and a head's dims.

    Where kv heads have no queries in groups, as many heads as a head has dims.
    """
    latent = "kv_lora_rank" in values
    kv = "num_key_value_heads" if "num_key_value_heads" in values else "num_kv_heads"
    grouped = values.get(kv) is not None and not latent
    small = 4 if grouped else 8
    sizes = {
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "n_embd", "n_inner"), WIDE),
        **dict.fromkeys(("n_positions", "q_lora_rank", "kv_lora_rank", "moe_intermediate_size"), WIDE),
        "shared_expert_intermediate_size": WIDE,
        **dict.fromkeys(("hidden_size_per_layer_input", "vocab_size_per_layer_input", "laurel_rank"), WIDE),
        **dict.fromkeys(("num_attention_heads", "n_head"), WIDE // small),
        **dict.fromkeys((kv, "head_dim", "global_head_dim"), small),
        **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), small),
    }
    return {key: value if value is None else sizes.get(key, value) for key, value in values.items()}


def mutants(dialect: Dialect, canonical: Canonical, hyperparameters: Mapping[str, Any]) -> list[Mutant]:
    """Every mutant of the rules that this model has."""
    bound = bind_rules(dialect, canonical, hyperparameters)
    present = {(part.rule.theirs, part.rule.ours): part.points[0] for part in bound}
    sizes = Sizes(canonical, hyperparameters, dialect.axes)
    ties = ties_in_force(canonical, hyperparameters)
    made = []
    for place, rule in enumerate(dialect.rules):
        point = present.get((rule.theirs, rule.ours))
        if point is None or not rule.weights:
            continue
        at = dict(zip(rule.theirs.variables, point, strict=True))
        axes = sorted({axis for leaf in rule.layout.leaves for axis in leaf})
        left_out = rule.when_tied == "omit" and all(name in ties for name in rule.ours)
        for what, layout, ours in _of_layout(rule, sizes.sizes(axes, at)):
            rules = list(dialect.rules)
            rules[place] = replace(rule, layout=layout, ours=ours)
            before, after = (
                zip(names, leaves, strict=True)
                for names, leaves in ((rule.ours, rule.layout.leaves), (ours, layout.leaves))
            )
            touched = frozenset(one[0] for one, two in zip(before, after, strict=True) if one != two)
            same = "a tied head is not written" if left_out else _same_model(touched, hyperparameters)
            text = f"{rule.theirs.text}: {what}, {rule.layout} → {layout}"
            made.append(Mutant(text, replace(dialect, rules=tuple(rules)), same))
    names = sorted({block.canonical for part in bound for block in part.blocks})
    for one, two in itertools.combinations(names, 2):
        tensors = canonical.tensors[one], canonical.tensors[two]
        if tensors[0].axes != tensors[1].axes or (
            tensors[0].pattern.variables != tensors[1].pattern.variables
        ):
            continue
        other = {one: two, two: one}
        swapped = [
            replace(rule, ours=tuple(other.get(name, name) for name in rule.ours)) for rule in dialect.rules
        ]
        tied = one in ties or two in ties
        same = "a tie is two names of one weight" if tied else _same_model({one, two}, hyperparameters)
        made.append(Mutant(f"{one} and {two}", replace(dialect, rules=tuple(swapped)), same))
    return made


def _same_model(touched: Set[str], hyperparameters: Mapping[str, Any]) -> str | None:
    """Why a mutant computes the same, where it does."""
    ends = {name.partition(".")[2] for name in touched}
    if ends == {"attn.o_bias", "mlp.down_bias"} and hyperparameters["parallel_residual"]:
        return "attention and MLP side by side: both biases are added to one sum"
    if ends == {"attn.k_bias"} and hyperparameters["learned_positions"]:
        # q · (k + b) without rotation: q · b is one number for all keys, and softmax takes it out.
        return "nothing rotates: a bias of k adds the same to the scores of all keys"
    return None


def _of_layout(rule: Rule, size: Mapping[str, int]) -> Iterator[tuple[str, Layout, tuple[str, ...]]]:
    """What happened, the layout and the canonical tensors of its leaves."""
    dims = rule.layout.dims
    for one, two in itertools.combinations(list(_axes(dims)), 2):
        (path, blocks, axis), (other, there, also) = one, two
        if blocks == there and size[axis] == size[also] > 1:
            swapped = _put(_put(dims, path, Axis(also)), other, Axis(axis))
            yield "two axes", Layout(swapped), rule.ours
    shape = bind(rule.layout, size).shape
    for one, two in itertools.combinations(range(len(dims)), 2):
        if shape[one] == shape[two] > 1 and not (isinstance(dims[one], Axis) and isinstance(dims[two], Axis)):
            order = list(dims)
            order[one], order[two] = dims[two], dims[one]
            leaves = Layout(tuple(order)).leaves
            if [sorted(leaf) for leaf in leaves] == [sorted(leaf) for leaf in rule.layout.leaves]:
                yield "two dims", Layout(tuple(order)), rule.ours
    yield from _blocks(rule, size)


def _blocks(rule: Rule, size: Mapping[str, int]) -> Iterator[tuple[str, Layout, tuple[str, ...]]]:
    """Blocks of one size with other axes; those with the same axes are swapped as tensors."""
    for path, group in _groups(rule.layout.dims):
        leaves = [Layout(dims).leaves for dims in group.alternatives]
        if any(len(found) > 1 for found in leaves) or len(leaves) != len(rule.layout.leaves):
            continue
        for one, two in itertools.combinations(range(len(leaves)), 2):
            (mine,), (yours,) = leaves[one], leaves[two]
            shapes = [bind(Layout(group.alternatives[which]), size).shape for which in (one, two)]
            if sorted(mine) == sorted(yours) or shapes[0] != shapes[1]:
                continue
            if {rule.ours[one], rule.ours[two]} & {*FILLERS}:
                continue
            order = list(group.alternatives)
            order[one], order[two] = order[two], order[one]
            ours = list(rule.ours)
            ours[one], ours[two] = ours[two], ours[one]
            yield "two blocks", Layout(_put(rule.layout.dims, path, Group(tuple(order)))), tuple(ours)


Path_ = tuple[tuple[int, int], ...]


def _axes(dims: tuple[Dim, ...], path: Path_ = (), blocks: Path_ = ()) -> Iterator[tuple[Path_, Path_, str]]:
    """The axes of a layout: the way to each (alternative, dim), through which blocks, and its name."""
    for place, dim in enumerate(dims):
        if isinstance(dim, Axis):
            yield (*path, (0, place)), blocks, dim.name
        elif isinstance(dim, Group):
            for which, alternative in enumerate(dim.alternatives):
                inside = blocks
                if len(dim.alternatives) > 1:
                    inside = (*blocks, (len(path), which))
                for found, at, name in _axes(alternative, (), inside):
                    yield (*path, (0, place), (which, -1), *found), at, name


def _groups(dims: tuple[Dim, ...], path: Path_ = ()) -> Iterator[tuple[Path_, Group]]:
    for place, dim in enumerate(dims):
        if isinstance(dim, Group):
            if len(dim.alternatives) > 1:
                yield (*path, (0, place)), dim
            for which, alternative in enumerate(dim.alternatives):
                yield from _groups(alternative, (*path, (0, place), (which, -1)))


def _put(dims: tuple[Dim, ...], path: Path_, new: Dim) -> tuple[Dim, ...]:
    (_, place), *rest = path
    old, found = dims[place], new
    if rest:
        assert isinstance(old, Group)
        (which, _), *inner = rest
        alternatives = list(old.alternatives)
        alternatives[which] = _put(alternatives[which], tuple(inner), new)
        found = Group(tuple(alternatives))
    return (*dims[:place], found, *dims[place + 1 :])


class Bed:
    """A tiny square model as transformers writes it, and what each framework makes of a dialect of it."""

    def __init__(self, folder: Path, values: Mapping[str, Any], families: ModuleType) -> None:
        model = families.build(square(values))
        model.save_pretrained(folder / "hf")
        self._model = type(model)
        self._config = model.config
        self.opened = open_source(folder / "hf")
        self.identity = self.opened.identified()
        assert values["model_type"] in self.identity.family.dialect("hf").config.match["model_type"]
        self._litgpt, self._keras = folder / "litgpt", folder / "keras"
        self._module: Any = None
        self._backbone: Any = None
        # The vocabulary has as many.
        self._prompt = torch.randint(WIDE, (1, TOKENS), generator=torch.Generator().manual_seed(3))
        with torch.inference_mode():
            self._logits: Tensor = model(self._prompt).logits

    @property
    def dialects(self) -> list[str]:
        """Without KerasHub's, which has less to say: it takes a config of its own (`families.KERAS`)."""
        return [name for name in ("hf", "litgpt") if name in self.identity.family.dialects]

    def mutants(self, dialect: str) -> list[Mutant]:
        family = self.identity.family
        return mutants(family.dialect(dialect), family.canonical, self.identity.hyperparameters)

    def apart(self, dialect: Dialect) -> float | None:
        """max |Δ| / max |logit| of a dialect's framework, or None where it is refused."""
        try:
            plan = build_plan(
                self.opened.checkpoint, self.identity, dialect, PlanOptions(to="hf", weights_only=True)
            )
        except PorterError:
            return None
        source = self.opened.checkpoint.source
        assert source is not None
        state = dict(StateDict(plan, source))
        with torch.inference_mode():
            of = {"hf": self._hf, "litgpt": self._of_litgpt, "keras": self._of_keras}
            logits = of[dialect.name](state)
        if logits is None:
            return None
        return float((logits - self._logits).abs().max() / self._logits.abs().max())

    def _hf(self, state: dict[str, Tensor]) -> Tensor | None:
        try:
            model, loading = self._model.from_pretrained(
                None, config=self._config, state_dict=state, output_loading_info=True
            )
        except RuntimeError:
            return None
        if any(loading.values()):
            return None
        return model.eval()(self._prompt).logits

    def _of_litgpt(self, state: dict[str, Tensor]) -> Tensor | None:
        if self._module is None:
            from litgpt.config import Config
            from litgpt.model import GPT

            porter.convert(self.opened.checkpoint.root, self._litgpt, to="litgpt")
            with torch.device("meta"):
                self._module = GPT(Config.from_file(self._litgpt / "model_config.yaml")).eval()
        try:
            self._module.load_state_dict(state, strict=True, assign=True)
        except RuntimeError:
            return None
        self._module.cos, self._module.sin = self._module.rope_cache(device="cpu")
        return self._module(self._prompt)

    def _of_keras(self, state: dict[str, Tensor]) -> Tensor | None:
        import h5py

        if self._backbone is None:
            os.environ.setdefault("KERAS_BACKEND", "torch")
            from keras_hub.models import Backbone

            porter.convert(self.opened.checkpoint.root, self._keras, to="keras")
            self._backbone = Backbone.from_preset(str(self._keras), dtype="float32")
            # Which variable a stored array became is seen by its values; those that are zeros nothing reads.
            held = {bytes(np.asarray(v.detach().cpu())): v for v in map(_value, self._backbone.weights)}
            with h5py.File(self._keras / "model.weights.h5") as file:
                stored = {name: np.asarray(file[name]) for name in state}
            self._variables = {name: held[bytes(array)] for name, array in stored.items() if array.any()}
        if any(state[name].shape != variable.shape for name, variable in self._variables.items()):
            return None
        for name, variable in self._variables.items():
            variable.data.copy_(state[name])
        inputs = {
            "token_ids": self._prompt,
            "padding_mask": torch.ones_like(self._prompt),
            "position_ids": torch.arange(TOKENS)[None],
        }
        names = {tensor.name.split(":")[0] for tensor in self._backbone.inputs}
        hidden = self._backbone({name: inputs[name] for name in names})
        embedding = self._backbone.token_embedding or self._backbone.language_model.token_embedding
        found: Tensor = embedding(hidden, reverse=True)
        return found


def _value(variable: Any) -> Tensor:
    """What a Keras variable holds, with torch under it."""
    held: Tensor = variable.value
    return held


@dataclass
class Tally:
    """How many mutants were tried, what lived, and what was left out for what reason."""

    tried: int = 0
    alive: list[str] = field(default_factory=list)
    same: Counter[str] = field(default_factory=Counter)

    def add(self, bed: Bed, dialect: str, some: int | None = None) -> None:
        """All mutants of a dialect, or some. The table itself has to change nothing."""
        right = bed.apart(bed.identity.family.dialect(dialect))
        assert right is not None and right <= BOUND, f"the table without a mistake: {right}"
        every = bed.mutants(dialect)
        self.same.update(mutant.same for mutant in every if mutant.same)
        found = [mutant for mutant in every if not mutant.same]
        if some is not None and len(found) > some:
            found = [found[place * len(found) // some] for place in range(some)]
        self.tried += len(found)
        for mutant in found:
            apart = bed.apart(mutant.dialect)
            if apart is not None and not apart > APART:
                self.alive.append(f"{dialect}: {mutant.what} ({apart:.1e})")


def main() -> int:
    import families
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    total = Tally()
    for family in families.every_family():
        configs: list[dict[str, Any]] = []
        before = total.tried
        for variant in ("", *families.variants(family)):
            values = families.config_of(family, variant)
            if square(values) in configs:
                continue
            configs.append(square(values))
            with tempfile.TemporaryDirectory() as folder:
                bed = Bed(Path(folder), values, families)
                for dialect in bed.dialects:
                    count = len(total.alive)
                    total.add(bed, dialect)
                    total.alive[count:] = [f"{family} {variant}, {what}" for what in total.alive[count:]]
        if family in families.KERAS:
            values = families.config_of(family, "") | families.KERAS[family]
            with tempfile.TemporaryDirectory() as folder:
                total.add(Bed(Path(folder), values, families), "keras")
            configs.append(values)
        print(f"{family}: {total.tried - before} mutants of {len(configs)} models", flush=True)
    for what in total.alive:
        print(f"survived: {what}", file=sys.stderr)
    for reason, count in total.same.items():
        print(f"{count} are the same model ({reason})")
    print(f"{total.tried - len(total.alive)} of {total.tried} mutants were refused or changed the logits")
    return 1 if total.alive else 0


if __name__ == "__main__":
    sys.exit(main())
