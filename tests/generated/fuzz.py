"""`make fuzz-plans`, a part of `make fuzz`: as many made-up families as are asked for, through every way of
running a plan.

    python tests/generated/fuzz.py [how many] [first seed]

Prints each seed that fails, and ends with 1 if any did.
"""

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[2]))

from families import AVOIDABLE
from harness import trial


def main(count=20_000, first=0):
    features, kinds, failed, start = Counter(), Counter(), 0, time.monotonic()
    for seed in range(first, first + count):
        case, wrong = trial(seed, avoid=AVOIDABLE)
        features.update(case.features)
        if wrong:
            failed += 1
            for runner, found in wrong.items():
                kinds[runner, found[0].split("\n")[0][:60]] += 1
                print(f"{seed} {runner}: {found[0][:300]} {sorted(case.features)}", flush=True)
    print(f"{count} plans, {failed} failed, {time.monotonic() - start:.0f} s; {dict(features)}")
    for (runner, kind), number in kinds.most_common(25):
        print(f"{number:5} {runner}: {kind}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
