"""What the hot paths cost, each beside its floor, in rounds by turns.

python bench append --events 20 --requests 1500 --rounds 5
python bench relay --events 1 --requests 20000 --rounds 5
python bench fan-out --runs 1 --watchers 1000 --rounds 5
python bench fan-out --runs 1000 --watchers 1 --linger 0,0.01 --rounds 5
python bench growth --only stored --stored 0,1000000 --rounds 3
python bench storm --only reconnects --watchers 10000 --rounds 3
python bench latency --seconds 5 --rounds 3
python bench overhead --seconds 10 --rounds 5
python bench steady --minutes 30
python bench peers --only relay,fan-out --requests 6000 --rounds 5
python bench plot .juinie/bench/results.jsonl --into docs/explanation
python bench capacity            # what some loads need, by formulas; --check holds them against small real runs, and fails
python bench counters            # what no machine makes faster, held to bench/baseline.json; --renew accepts it
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import append
import beside_peers
import capacity
import capacity_check
import counters
import fan_out
import growth
import latency
import orjson
import overhead
import plot
import relay
import steady
import storm
import uvloop
from peer_programs import Missing
from rounds import Measured
from world import World

WITH_KAFKA = {"relay", "fan-out"}
type Measuring = Coroutine[Any, Any, Measured]

CASES: Mapping[str, Mapping[str, Callable[[Any, Callable[[str], None]], Measuring]]] = {
    "growth": growth.CASES,
    "storm": storm.CASES,
    "latency": latency.CASES,
    "overhead": overhead.CASES,
    "steady": steady.CASES,
    "peers": beside_peers.CASES,
}
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def told(measured: Measured, *, growing: bool = False) -> str:
    """A line for each way, and one for each but the first: what the first costs in proportion to it, or where it is growth
    that is asked for, what it costs in proportion to the first.
    """
    first, *others = measured.samples
    lines = [f"µs of CPU a {measured.unit}, median of the rounds; wall time of a request"]
    for side, samples in measured.samples.items():
        parts = {part: median(measured.micros(side, [part])) for part in samples[0].cpu}
        latency = ", ".join(
            f"{name} {measured.latency(side, share) * 1e3:.1f} ms"
            for name, share in QUANTILES.items()
            if any(sample.latencies for sample in samples)
        )
        counters = ", ".join(
            f"{name} {median(sample.counters[name] / sample.units for sample in samples):.6g}"
            for name in samples[0].counters
        )
        cpu = ", ".join(f"{part} {micros:.1f}" for part, micros in parts.items())
        lines.append(f"{side:18} {median(measured.micros(side)):8.1f}  {cpu}  {latency}  {counters}")
    for other in others:
        here, there = (other, first) if growing else (first, other)
        middle, least, most = measured.ratio(here, there)
        lines.append(f"{here} / {there}: {middle:.3f} ({least:.3f} to {most:.3f})")
    lines += [f"{name}: {value:.6g}" for name, value in measured.facts.items()]
    return "\n".join(lines)


def kept(arguments: argparse.Namespace, measured: Measured) -> dict[str, object]:
    """All that was measured, where and how: a line of the file of results. CPU in seconds, latencies in seconds at their quantiles."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "measured_at": datetime.now(UTC),
        "commit": commit.stdout.strip(),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
        "unit": measured.unit,
        "rounds": {
            side: [
                {"units": one.units, "seconds": one.seconds, "cpu": one.cpu, "counters": one.counters}
                for one in samples
            ]
            for side, samples in measured.samples.items()
        },
        "latency": {
            side: {name: measured.latency(side, share) for name, share in QUANTILES.items()}
            for side in measured.samples
        },
        "facts": measured.facts,
        "missing": measured.missing,
    }


def _progress(line: str) -> None:
    print(line, flush=True)


async def run(arguments: argparse.Namespace) -> Measured:
    """Measure one path."""
    async with World(with_kafka=arguments.path in WITH_KAFKA) as world:
        if arguments.path == "fan-out":
            return await fan_out.measure(
                world,
                _fan_out_shape(arguments),
                arguments.rounds,
                _progress,
                arguments.processes,
                arguments.linger,
            )
        shape = append.Shape(arguments.events, arguments.requests)
        path = append.measure if arguments.path == "append" else relay.measure
        return await path(world, shape, arguments.rounds, _progress)


def _fan_out_shape(arguments: argparse.Namespace) -> fan_out.Shape:
    """Deliveries at the rate of `--rate`, for `--seconds`, in ticks of 10 ms, or as long as one event takes."""
    events_a_second = arguments.rate / arguments.watchers
    tick_seconds = max(0.01, 1 / events_a_second)
    runs_a_tick = max(1, round(events_a_second * tick_seconds))
    ticks = round(arguments.seconds / tick_seconds)
    whole = max(1, arguments.runs // runs_a_tick)
    return fan_out.Shape(
        arguments.runs, arguments.watchers, ticks // whole * whole, tick_seconds, runs_a_tick
    )


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _times(text: str) -> list[float]:
    """Each once, in their order."""
    return list(dict.fromkeys(float(word) for word in text.split(",")))


def _finish(arguments: argparse.Namespace, measured: Measured, case: str | None = None) -> None:
    """Say what came out, and keep it where that is wanted."""
    print(f"{case or arguments.path}: {told(measured, growing=case is not None)}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        with arguments.json.open("ab") as lines:
            lines.write(orjson.dumps({**kept(arguments, measured), "case": case}, default=str) + b"\n")


def _measured(arguments: argparse.Namespace, case: Callable[[], Measuring], name: str) -> bool:
    """Measure a case. Gives whether a peer was missing, which is told at last, where it is seen."""
    try:
        measured = uvloop.run(case())
    except Missing as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return True
    _finish(arguments, measured, name)
    for missing in measured.missing:
        print(f"{name}: {missing}", file=sys.stderr)
    return bool(measured.missing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", choices=["append", *WITH_KAFKA, *CASES, "counters", "capacity", "plot"])
    parser.add_argument("--events", type=int, default=1, help="in each append")
    parser.add_argument("--requests", type=int, default=2000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="add all samples to this file, as one line")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--watchers", type=int, default=1000, help="of each run, or in a storm")
    parser.add_argument("--rate", type=float, default=20_000, help="deliveries a second")
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    parser.add_argument("--minutes", type=int, default=30, help="of the steady load")
    parser.add_argument(
        "--runs-before", type=int, default=0, help="runs made before the steady load: 70000 fill all caches"
    )
    parser.add_argument("--processes", type=int, default=1, help="of the gateway")
    parser.add_argument(
        "--linger",
        type=_times,
        default=[0.0],
        help="seconds that Kafka gathers for the fan-out: several, as 0,0.01, are measured by turns",
    )
    names = "; ".join(f"{path}: {', '.join(cases)}" for path, cases in CASES.items())
    parser.add_argument("--only", type=_words, help=f"some cases of {names}")
    parser.add_argument("--stored", type=_numbers, default=[0, 1_000_000], help="events, of the growth")
    parser.add_argument("--most", type=int, default=10_000, help="runs and watchers, of the growth")
    parser.add_argument("--long-run-events", type=int, default=1_000_000, help="of the storm")
    parser.add_argument("--mercure", type=Path, help="of the peers: the program, where it is not on the PATH")
    parser.add_argument("--renew", action="store_true", help="accept the counters of now")
    parser.add_argument("--check", action="store_true", help="capacity: against real runs")
    parser.add_argument("kept", nargs="?", type=Path, help="for plot: what --json wrote")
    parser.add_argument("--into", type=Path, default=Path(), help="for plot: the directory of its pictures")
    return parser


def _cases(arguments: argparse.Namespace) -> dict[str, Callable[[], Measuring]]:
    """Of the growth, the storms, ..., those that are wanted, by name."""
    rounds = arguments.rounds
    sizes = {
        "growth": growth.Wanted(rounds, arguments.stored, arguments.most),
        "storm": storm.Wanted(rounds, arguments.watchers, arguments.long_run_events),
        "latency": latency.Wanted(rounds, arguments.seconds),
        "overhead": overhead.Wanted(rounds, arguments.seconds),
        "steady": steady.Wanted(arguments.minutes, arguments.runs_before),
        "peers": beside_peers.Wanted(
            rounds,
            append.Shape(arguments.events, arguments.requests),
            _fan_out_shape(arguments),
            arguments.mercure,
        ),
    }
    size, cases = sizes[arguments.path], CASES[arguments.path]
    return {name: partial(cases[name], size, _progress) for name in arguments.only or cases}


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    match arguments.path:
        case "counters":
            return counters.held(renew=arguments.renew)
        case "capacity" if arguments.check:
            wrong = uvloop.run(capacity_check.check(_progress))
            print("\n".join(f"not as foretold: {what}" for what in wrong) or "all as foretold")
            return int(bool(wrong))
        case "capacity":
            print(capacity.page())
        case "plot":
            if arguments.kept is None:
                parser.error("plot wants the file that --json wrote")
            for name, picture in plot.pictures(arguments.kept).items():
                file = arguments.into / f"{name}.svg"
                file.write_text(picture)
                print(file)
        case path if path in CASES:
            if unknown := set(arguments.only or ()) - CASES[path].keys():
                parser.error(f"no such case: {', '.join(unknown)}")
            lacking = [name for name, case in _cases(arguments).items() if _measured(arguments, case, name)]
            return int(bool(lacking))
        case _:
            _finish(arguments, uvloop.run(run(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
