"""The live-module check: does a real PyTorch module accept what the plan will write?

Names and shapes are compared, tensor by tensor, with the state dict of the module built on the meta
device from the very config that the plan will write. Nothing is loaded and nothing is written.
"""

from __future__ import annotations

import json
from typing import Any

from porter.errors import UnsupportedError, UsageError
from porter.planning.coverage import count, listed
from porter.planning.plan import Plan
from porter.tables.model import Dialect
from porter.verification.modules import Expected, expected_tensors


def check_plan(plan: Plan, target: Dialect, spec: str) -> int:
    """How many tensors the module accepts. Raises UnsupportedError that lists what does not fit."""
    if spec in ("litgpt", "porter", "transformers") and spec not in target.targets:
        raise UsageError(
            f"the model {spec} does not read the dialect {target.name}",
            hint=f"for {target.name}: {', '.join(target.targets) or 'package.module:callable'}",
        )
    expected = expected_tensors(spec, target_config(plan, target))
    problems = differences(plan, expected)
    if problems:
        raise UnsupportedError(
            f"{spec} does not accept the plan: {count(len(problems), 'tensor')} differ",
            cause=listed(problems),
            hint="nothing was written; see `porter mappings show` for the rules",
        )
    return sum(1 for _ in plan.targets())


def differences(plan: Plan, expected: Expected) -> list[str]:
    """Missing, unexpected and misshapen tensors, each with the rule that makes it."""
    made = {tensor.name: tensor.shape for tensor in plan.targets()}
    problems = []
    for name, shape in expected.shapes.items():
        if name in made:
            if made[name] != shape:
                problems.append(
                    f"misshapen {name}: the model has {list(shape)}, the plan {list(made[name])} "
                    f"({plan.rules.get(name, 'no rule')})"
                )
        elif not expected.shared[name] & made.keys():
            problems.append(f"missing {name} {list(shape)}: no rule makes it")
    problems.extend(
        f"unexpected {name} {list(shape)} ({plan.rules.get(name, 'no rule')})"
        for name, shape in made.items()
        if name not in expected.shapes
    )
    return problems


def target_config(plan: Plan, target: Dialect) -> dict[str, Any]:
    """The config that the plan writes, parsed back."""
    side = next((side for side in plan.side_files if side.name == target.config.file), None)
    if side is None or side.content is None:
        return {}
    if side.name.endswith((".yaml", ".yml")):
        import yaml

        loaded = yaml.safe_load(side.content)
    else:
        loaded = json.loads(side.content)
    return dict(loaded)
