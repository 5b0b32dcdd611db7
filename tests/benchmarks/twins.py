"""What events under a scenario, each with its twin, cost beside plain events.

    python tests/benchmarks/twins.py [--rounds N]

For each named scenario of orders: the median over the rounds of processor time, as a ratio to as many plain
events of the same seed. Compiling the scenario is included in the first round only.
"""

from __future__ import annotations

import argparse
import statistics
import time

import logistream as ls
from logistream.dataco import named_scenarios
from logistream.model.sampling import BLOCK

EVENTS = 24 * BLOCK


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (default: 5)")
    rounds = parser.parse_args().rounds
    model = ls.load_model()
    print(f"{'scenario':<32}{'plain, us/event':>17}{'with twins':>12}{'ratio':>8}")
    for scenario, _ in named_scenarios(model.schema):
        plain, twins = [], []
        for seed in range(rounds):
            begun = time.process_time()
            model.events(0, EVENTS, seed, scenario=scenario, twin=True)
            middle = time.process_time()
            model.events(0, EVENTS, seed)
            twins.append((middle - begun) / EVENTS * 1e6)
            plain.append((time.process_time() - middle) / EVENTS * 1e6)
        ratio = statistics.median(a / b for a, b in zip(twins, plain, strict=True))
        print(
            f"{scenario['name']:<32}{statistics.median(plain):>17.2f}{statistics.median(twins):>12.2f}{ratio:>8.2f}"
        )


if __name__ == "__main__":
    main()
