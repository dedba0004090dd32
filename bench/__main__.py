"""What the hot paths cost, each beside its floor, in rounds by turns.

python bench append --events 20 --requests 1500 --rounds 5
python bench relay --events 1 --requests 20000 --rounds 5
"""

import argparse
import sys
from statistics import median

import append
import relay
import uvloop
from rounds import Measured
from world import World

PATHS = {"append": append.measure, "relay": relay.measure}


def told(measured: Measured) -> str:
    """A line for each way, and one for what it cost in proportion to the first."""
    first, *others = measured.samples
    lines = [f"µs of CPU a {measured.unit}, median of the rounds; wall time of a request"]
    for side, samples in measured.samples.items():
        parts = {part: median(measured.micros(side, [part])) for part in samples[0].cpu}
        latency = (
            f"p50 {measured.latency(side, 0.5) * 1e3:.1f} ms, p99 {measured.latency(side, 0.99) * 1e3:.1f} ms"
        )
        counters = ", ".join(
            f"{name} {median(sample.counters[name] / sample.units for sample in samples):.6g}"
            for name in samples[0].counters
        )
        cpu = ", ".join(f"{part} {micros:.1f}" for part, micros in parts.items())
        lines.append(f"{side:10} {median(measured.micros(side)):8.1f}  {cpu}  {latency}  {counters}")
    for other in others:
        middle, least, most = measured.ratio(first, other)
        lines.append(f"{first} / {other}: {middle:.3f} ({least:.3f} to {most:.3f})")
    return "\n".join(lines)


async def run(arguments: argparse.Namespace) -> Measured:
    """Measure one path."""
    shape = append.Shape(arguments.events, arguments.requests)
    async with World(with_kafka=arguments.path == "relay") as world:
        return await PATHS[arguments.path](
            world, shape, arguments.rounds, lambda line: print(line, flush=True)
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", choices=PATHS)
    parser.add_argument("--events", type=int, default=1, help="in each append")
    parser.add_argument("--requests", type=int, default=2000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(told(uvloop.run(run(arguments))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
