"""Families made up at random: tables as text, sizes, canonical values, and what each dialect stores of them.

`make_case(seed)` is the same for the same seed. Nothing here is porter's: the tables are written as a person
would write them, and what they mean is worked out by `oracle`.
"""

import random
from dataclasses import dataclass, field

import numpy as np
from oracle import ITEM, stored

AXES = ("a", "b", "c", "d", "e")
# Derived from another size; cut in two; of another size for each i.
DERIVED, REFINED, RAGGED = "twice_a", "h", "r"
INDEX = ("i", "j")

# A rule without a layout, for a tensor with a refined axis: that axis is one stored dim.
REFINED_PLAINLY = "refined and without a layout"
# A tied copy that a dialect stores in another order, or as another value.
TIED_OTHERWISE = "tied and stored otherwise"
# Zeros as one more block anywhere in a layout.
ZEROS_INSIDE = "zeros inside"
AVOIDABLE = {REFINED_PLAINLY, TIED_OTHERWISE, ZEROS_INSIDE}


@dataclass
class Tensor:
    """A canonical tensor: `axes` as its table has them, `index` the variables in its name."""

    name: str
    index: tuple[str, ...]
    axes: tuple[str, ...]
    tied: str | None = None

    @property
    def spelled(self):
        return ".".join([*(f"{{{variable}}}" for variable in self.index), self.name])


@dataclass
class Rule:
    theirs: str
    named: tuple[str, ...]  # index variables in the stored name; the others are axes of the layout
    ours: list[Tensor]
    layout: str
    add: float | None = None
    multiply: float | None = None
    tied: str = "write"
    padding: int = 0
    plain: bool = False  # no layout is written: it is the order of the axes
    zeros: tuple[str, ...] = ()  # axes of a block of zeros, the last of them its own
    zeros_size: int = 0


@dataclass
class Case:
    """One family, its three dialects, its sizes, and what the source and the target store."""

    seed: int
    canonical: str
    dialects: dict[str, str]
    sizes: dict[str, object]
    dtype: str
    source: dict[str, np.ndarray] = field(default_factory=dict)
    expected: dict[str, np.ndarray] = field(default_factory=dict)
    shards: int = 1
    max_shard_size: int | None = None
    features: set[str] = field(default_factory=set)


def parts(axis):
    return ("h0", "h1") if axis == REFINED else (axis,)


def make_case(seed, *, block_padding=True, avoid=frozenset()):
    """`avoid` names features that are not made: of `AVOIDABLE`, what porter is known not to take."""
    chance = random.Random(seed)
    features = set()
    sizes = {axis: chance.choice((1, 2, 3, 3, 4, 5)) for axis in (*AXES, "h0", "h1")}
    if chance.random() < 0.08:
        sizes[chance.choice(AXES)] = 0
        features.add("zero sizes")
    sizes[DERIVED] = 2 * sizes["a"]
    # A model without layers is refused where one dialect stacks them: there is nothing to stack.
    counts = {"i": chance.choice((1, 2, 2, 3)), "j": chance.choice((1, 2, 3))}
    ragged = [chance.choice((1, 2, 4)) for _ in range(counts["i"])]
    operations = chance.random() < 0.3
    # Values with which sums and products are exact in float32.
    dtype = "F32" if operations else chance.choice(("F32", "F16", "BF16", "F64", "F8_E5M2"))

    tensors = [make_tensor(chance, f"t{number}", features) for number in range(chance.randint(2, 6))]
    tie = chance.random() < 0.35
    if tie:
        features.add("ties")
        tensors.append(Tensor("embed", (), ("a", "b")))
        tensors.append(Tensor("head", (), ("a", "b"), tied="embed"))
    tie_holds = tie and chance.random() < 0.8
    # Fused tensors are alike in their variables and share axes, so that fusing them is likely.
    tensors += cousins(chance, tensors)

    canonical = canonical_text(tensors, ragged, counts)
    dialects, rules = {}, {}
    for dialect in ("one", "two"):
        rules[dialect] = make_rules(chance, dialect, tensors, operations, features, avoid)
        dialects[dialect] = dialect_text(rules[dialect], dialect, block_padding)
    all_sizes = {
        **{axis: sizes[axis] for axis in (*AXES, "h0", "h1")},
        "n_i": counts["i"],
        "n_j": counts["j"],
        "r_sizes": ragged,
        "tie_embeddings": tie_holds,
    }
    case = Case(seed, canonical, dialects, all_sizes, dtype, features=features)
    values = make_values(chance, tensors, sizes, counts, ragged, dtype, operations, tie_holds)
    case.source = store(rules["one"], values, sizes, counts, ragged, tie_holds, chance)
    case.expected = store(rules["two"], values, sizes, counts, ragged, tie_holds, None)
    case.shards = chance.randint(1, 3)
    if chance.random() < 0.3 and case.expected:
        largest = max(array.nbytes for array in case.expected.values())
        case.max_shard_size = max(largest, 1) + chance.randint(0, 400)
        features.add("shards")
    return case


def make_tensor(chance, name, features):
    index = tuple(variable for variable in INDEX if chance.random() < 0.45)
    pool = [*AXES, DERIVED, REFINED] + ([RAGGED] if "i" in index else [])
    axes = tuple(chance.sample(pool, chance.choice((0, 1, 1, 2, 2, 2, 3, 3))))
    if RAGGED in axes:
        features.add("ragged")
    if REFINED in axes:
        features.add("refine")
    return Tensor(name, index, axes)


def cousins(chance, tensors):
    found = []
    for number, tensor in enumerate(tensors):
        if tensor.tied or not tensor.name.startswith("t") or chance.random() < 0.5:
            continue
        axes = list(tensor.axes)
        if axes and chance.random() < 0.7:
            axes.pop(chance.randrange(len(axes)))
        found.append(Tensor(f"u{number}", tensor.index, tuple(axes)))
    return found


# --- tables ----------------------------------------------------------------------------------------


def canonical_text(tensors, ragged, counts):
    lines = ['family = "made"', "version = 1", "", "[index]", 'i = "n_i"', 'j = "n_j"', "", "[axes]"]
    lines += [
        f'{DERIVED} = "2 * a"',
        f'{RAGGED} = "r_sizes[i]"',
        "",
        "[refine]",
        'h = "h0 h1"',
        "",
        "[tensors]",
    ]
    for tensor in tensors:
        axes = " ".join(tensor.axes)
        tie = f', tied = "{tensor.tied}"' if tensor.tied else ""
        lines.append(f'"{tensor.spelled}" = {{ axes = "{axes}"{tie} }}')
    lines += ["", "[hyperparameters]"]
    lines += [f'{name} = {{ type = "int", optional = true }}' for name in (*AXES, "h0", "h1", "n_i", "n_j")]
    lines += [
        'r_sizes = { type = "list", optional = true }',
        'tie_embeddings = { type = "bool", neutral = false }',
    ]
    return "\n".join(lines) + "\n"


def dialect_text(rules, dialect, block_padding):
    lines = ['family = "made"', f'dialect = "{dialect}"', "", "[files]", f'weights = "{dialect}.safetensors"']
    lines.append("sharded = true")
    padded = [rule for rule in rules if rule.padding]
    own = [f'pad_{rule.ours[0].name} = "{rule.padding}"' for rule in padded if block_padding]
    own += [f'{rule.zeros[-1]} = "{rule.zeros_size}"' for rule in rules if rule.zeros]
    if own:
        lines += ["", "[axes]", *own]
    for rule in rules:
        ours = [tensor.spelled for tensor in rule.ours]
        layout = rule.layout
        if rule.padding and block_padding:
            first, rest = rule.layout.split(" ", 1) if " " in rule.layout else (rule.layout, "")
            ours.append("zeros")
            layout = f"({first} | pad_{rule.ours[0].name}) {rest}".strip()
        if rule.zeros:
            ours.append("zeros")
        lines += ["", "[[rule]]", f'theirs = "{rule.theirs}"']
        lines.append(f'ours = "{ours[0]}"' if len(ours) == 1 else f"ours = {ours}".replace("'", '"'))
        if not rule.plain or len(ours) > 1:
            lines.append(f'layout = "{layout}"')
        if rule.padding and not block_padding:
            axis = rule.layout.split()[0]
            lines.append(f'pad = {{ {axis} = "{axis} + {rule.padding}" }}')
        for key in ("add", "multiply"):
            if getattr(rule, key) is not None:
                lines.append(f"{key} = {getattr(rule, key)}")
        if rule.tied == "omit":
            lines.append('tied = "omit"')
    return "\n".join(lines) + "\n"


def make_rules(chance, dialect, tensors, operations, features, avoid):
    left = list(tensors)
    chance.shuffle(left)
    rules = []
    while left:
        first = left.pop()
        group = [first]
        if not first.tied and first.name != "embed" and chance.random() < 0.6:
            like = [other for other in left if other.index == first.index and fuses(other, first)]
            chance.shuffle(like)
            for other in like[: chance.choice((1, 1, 2))]:
                left.remove(other)
                group.append(other)
        rules.append(make_rule(chance, dialect, group, len(rules), operations, features, avoid))
    return rules


def fuses(one, other):
    return not one.tied and one.name != "embed" and one.name[0] in "tu" and other.name[0] in "tu"


def make_rule(chance, dialect, group, number, operations, features, avoid):
    ragged = any(RAGGED in tensor.axes for tensor in group)
    index = group[0].index
    named = tuple(v for v in index if (v == "i" and ragged) or chance.random() < 0.6)
    stacked = [variable for variable in index if variable not in named]
    tied = group[0].name in ("embed", "head")
    if stacked:
        features.add("stacked")
    name = ".".join([dialect, f"n{number}", *(f"{{{v}}}" for v in named), "w"])
    alike = tied and (TIED_OTHERWISE in avoid or chance.random() < 0.5)
    plain = len(group) == 1 and not stacked and (alike or chance.random() < 0.25)
    if tied and not alike:
        features.add(TIED_OTHERWISE)
    if plain and REFINED in group[0].axes:
        plain = REFINED_PLAINLY not in avoid
        if plain:
            features.add(REFINED_PLAINLY)
    if plain:
        layout = " ".join(group[0].axes)
    else:
        layout = make_layout(chance, [[*stacked, *tensor.axes] for tensor in group], features)
    rule = Rule(name, named, group, layout, plain=plain)
    # From a stream of its own, so that without such blocks every case stays what it is.
    inside = random.Random(f"{group[0].name} {layout}")
    if ZEROS_INSIDE not in avoid and not plain and not tied and inside.random() < 0.25:
        features.add(ZEROS_INSIDE)
        add_zeros(inside, rule, [[*stacked, *tensor.axes] for tensor in group])
        return rule
    if operations and not alike and chance.random() < 0.4:
        features.add("operations")
        if chance.random() < 0.7:
            rule.add = chance.choice((1.0, -3.0, 0.5))
        if chance.random() < 0.5:
            rule.multiply = chance.choice((2.0, 0.25, 4.0))
    if group[0].tied and chance.random() < 0.5:
        rule.tied = "omit"
    simple = len(group) == 1 and not stacked and plain and group[0].axes and rule.add is None
    if simple and not tied and group[0].axes[0] in AXES and chance.random() < 0.4:
        features.add("padding")
        rule.padding = chance.choice((1, 2, 3))
    return rule


def add_zeros(chance, rule, axes):
    """Another layout, with a block of zeros behind the others' that shares some of their axes."""
    axes = [[part for axis in one for part in parts(axis)] for one in axes]
    common = [axis for axis in axes[0] if all(axis in one for one in axes)]
    own = f"pad_{rule.theirs.split('.')[1]}"
    rule.zeros, rule.zeros_size = (*common, own), chance.choice((0, 1, 2, 3))
    rule.layout = make_layout(chance, [*axes, list(rule.zeros)], set())


def make_layout(chance, axes, features):
    """A layout with one block for each list of axes."""
    axes = [[part for axis in one for part in cut(chance, axis, features)] for one in axes]
    if len(axes) == 1:
        return grouped(chance, shuffled(chance, axes[0]))
    features.add("sums")
    common = [axis for axis in axes[0] if all(axis in one for one in axes)]
    shared = [axis for axis in common if chance.random() < 0.7]
    blocks = [[axis for axis in one if axis not in shared] for one in axes]
    texts = [" ".join(shuffled(chance, block)) or "1" for block in blocks]
    if len(texts) > 2 and chance.random() < 0.5:
        features.add("nested sums")
        total = f"({texts[0]} | ({' | '.join(texts[1:])}))"
    else:
        total = f"({' | '.join(texts)})"
    shared = shuffled(chance, shared)
    place = chance.randint(0, len(shared))
    return grouped(chance, [*shared[:place], total, *shared[place:]])


def cut(chance, axis, features):
    """A refined axis is written whole or in its parts, which need not stay together."""
    if axis == REFINED and chance.random() < 0.6:
        return ["h0", "h1"]
    return [axis]


def shuffled(chance, items):
    items = list(items)
    if chance.random() < 0.7:
        chance.shuffle(items)
    return items


def grouped(chance, items):
    """Neighbours merged into one stored dim here and there, units put between."""
    dims, place = [], 0
    while place < len(items):
        count = chance.choice((1, 1, 1, 2, 3))
        group = items[place : place + count]
        dims.append(group[0] if len(group) == 1 else f"({' '.join(group)})")
        place += count
    if chance.random() < 0.15:
        dims.insert(chance.randint(0, len(dims)), "1")
    return " ".join(dims)


# --- values ----------------------------------------------------------------------------------------


def places_of(variables, counts):
    found = [{}]
    for variable in variables:
        found = [{**one, variable: number} for one in found for number in range(counts[variable])]
    return found


def sizes_at(sizes, ragged, where):
    here = {**sizes, "h": sizes["h0"] * sizes["h1"]}
    if "i" in where:
        here[RAGGED] = ragged[where["i"]]
    return here


def make_values(chance, tensors, sizes, counts, ragged, dtype, operations, tie_holds):
    """Canonical arrays by name and place, axes refined: whole numbers for operations, else any bytes."""
    noise = np.random.default_rng(chance.getrandbits(64))
    found = {}
    for tensor in tensors:
        for where in places_of(tensor.index, counts):
            here = sizes_at(sizes, ragged, where)
            shape = [here[part] for axis in tensor.axes for part in parts(axis)]
            count = int(np.prod(shape, dtype=int))
            if tensor.tied and tie_holds:
                array = found[tensor.tied, ()]
            elif operations:
                array = noise.integers(-(2**15), 2**15, count).astype(np.float32).reshape(shape)
            else:
                raw = np.frombuffer(noise.bytes(count * ITEM[dtype]), f"V{ITEM[dtype]}")
                array = raw.view({1: "u1", 2: "u2", 4: "u4", 8: "u8"}[ITEM[dtype]]).reshape(shape)
            found[tensor.name, tuple(sorted(where.items()))] = array
    return found


def store(rules, values, sizes, counts, ragged, tie_holds, optional):
    """What a dialect stores. With `optional` (a source), tied tensors may be left out."""
    arrays = {}
    for rule in rules:
        if (
            rule.ours[0].tied
            and tie_holds
            and (rule.tied == "omit" or (optional and optional.random() < 0.5))
        ):
            continue
        stacked = [variable for variable in rule.ours[0].index if variable not in rule.named]
        for where in places_of(rule.named, counts):
            here = sizes_at(sizes, ragged, where) | {variable: counts[variable] for variable in stacked}
            blocks = []
            for tensor in rule.ours:
                own = tuple(part for axis in tensor.axes for part in parts(axis))
                shape = [here[part] for part in own]
                array = np.zeros([counts[v] for v in stacked] + shape, value_dtype(values))
                for place in places_of(stacked, counts):
                    key = tuple(sorted({**where, **place}.items()))
                    array[tuple(place[v] for v in stacked)] = values[tensor.name, key]
                blocks.append(((*stacked, *own), array))
            if rule.zeros:
                here[rule.zeros[-1]] = rule.zeros_size
                nothing = np.zeros([here[axis] for axis in rule.zeros], value_dtype(values))
                blocks.append((rule.zeros, nothing))
            made = stored(with_parts(rule.layout), blocks, here)
            if rule.add is not None:
                made = made + np.float32(rule.add)
            if rule.multiply is not None:
                made = made * np.float32(rule.multiply)
            if rule.padding:
                made = np.concatenate([made, np.zeros((rule.padding, *made.shape[1:]), made.dtype)])
            name = rule.theirs
            for variable, number in where.items():
                name = name.replace(f"{{{variable}}}", str(number))
            # Not ascontiguousarray, which makes one dim of none.
            arrays[name] = np.array(made, order="C")
    return arrays


def value_dtype(values):
    return next(iter(values.values())).dtype if values else np.dtype("u1")


def with_parts(layout):
    """The refined axis in its parts, as one dim."""
    return " ".join("(h0 h1)" if word == REFINED else word for word in spaced(layout).split())


def spaced(layout):
    for mark in "()|":
        layout = layout.replace(mark, f" {mark} ")
    return layout
