"""The fault suite: Juinie with everything that can go wrong, under load, checked from outside.

python tests/faults run --seconds 300 --seed 1      # figures are kept; Ctrl-C ends it in good order
python tests/faults report                          # all kept runs added up
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop
from deployment import Deployment
from goals import SLACK, exceeded
from kafka_faults import kafka_faults
from kept import HISTORY, keep, report
from on_kafka import check_kafka
from postgres_faults import postgres_faults
from service_faults import service_faults

from juinie.torture.hooks import line_faults, storm
from juinie.torture.reconnects import only_reconnects
from juinie.torture.scene import Load, Scene
from juinie.torture.schedule import Episode, Fault
from juinie.torture.summary import Summary, clean, doubts, not_there, occurred, told
from juinie.torture.torturing import torture

LONG_SECONDS, LEAST_KINDS = 300, 20
"""A run of so many seconds has to try so many kinds of faults, or it is no good one."""
LONG_RUN_EVENTS = 200
"""So many events are far behind whatever has still to be published, wherever watchers and publishers are."""
AWAY_SECONDS = 180.0
SHORT_AWAY_SECONDS = 10.0
SHORT_SECONDS = 400
"""A run that is shorter has no three minutes for Kafka to be away."""


def all_faults(scene: Scene, deployment: Deployment, away_seconds: float) -> list[Fault]:
    """Every kind."""
    chance = random.Random("which of two")

    def a_run() -> str | None:
        return scene.chance.choice(sorted(scene.open_runs)) if scene.open_runs else None

    def a_long_run() -> str | None:
        long = [run for run in scene.open_runs if scene.checker.acknowledged(run) >= LONG_RUN_EVENTS]
        return scene.chance.choice(sorted(long)) if long else None

    network = [
        fault
        for pair, lines in deployment.lines.items()
        for fault in line_faults(pair, lines, chance, to_client=pair.startswith("client-"))
    ]
    return [
        *service_faults(deployment, chance),
        *postgres_faults(deployment, a_run),
        *kafka_faults(deployment, chance, a_run, a_long_run, away_seconds),
        *network,
        storm("watchers", deployment.lines["client-gateway"]),
    ]


async def run(arguments: argparse.Namespace) -> Summary:
    """One run, kept."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with Deployment(arguments.late) as deployment:
        load = Load(
            rate=arguments.rate,
            runs_at_once=arguments.runs,
            watchers=arguments.watchers,
            batch=arguments.batch,
        )
        chance, answers = random.Random(arguments.seed), deployment.answers
        scene = Scene(deployment.client, load, chance, answers=answers, stopping=stopping)
        away = arguments.away or (SHORT_AWAY_SECONDS if arguments.seconds < SHORT_SECONDS else AWAY_SECONDS)
        faults = [fault for fault in all_faults(scene, deployment, away) if arguments.only in fault.name]
        if not faults:
            sys.exit(f"No fault's name holds {arguments.only!r}.")
        deployment.keep = True  # unless all goes well
        if arguments.reconnects:
            found = await only_reconnects(scene, arguments.reconnects, arguments.seed)
        else:
            kafka = partial(check_kafka, scene, deployment)
            found = await torture(scene, faults, arguments.seed, arguments.seconds, _teller(scene), kafka)
        deployment.keep = not clean(found) or bool(exceeded(found, arguments.slack))
        if deployment.keep:
            print(f"The logs are in {deployment.directory}", file=sys.stderr)
    keep(found, arguments.history)
    return found


def _teller(scene: Scene) -> Callable[[Episode], None]:
    began = time.monotonic()

    def tell(episode: Episode) -> None:
        so_far = f"{scene.checker.events:8d} events  {scene.checker.findings.counts.total()} found"
        print(f"{time.monotonic() - began:6.0f} s  {so_far}  {told(episode)}", flush=True)

    return tell


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("--seconds", type=float, default=300)
    running.add_argument("--seed", type=int, default=random.randrange(10**6))
    running.add_argument("--rate", type=float, default=1500, help="events a second")
    running.add_argument("--runs", type=int, default=12, help="runs at once")
    running.add_argument("--watchers", type=int, default=2, help="watchers of each run")
    running.add_argument("--batch", type=int, default=100, help="events in an append, at most")
    running.add_argument("--away", type=float, default=0, help="for how many seconds Kafka is away")
    running.add_argument(
        "--reconnects", type=int, default=0, help="instead: so many at random positions, without faults"
    )
    running.add_argument(
        "--late", type=float, help="an answer is late after so many seconds; else as promised"
    )
    running.add_argument(
        "--slack",
        type=float,
        default=SLACK,
        help="no good run where something takes so many times as long as it should",
    )
    running.add_argument("--only", default="", help="only faults whose name holds this")
    reporting = verbs.add_parser("report")
    for verb in (running, reporting):
        verb.add_argument("--history", type=Path, default=HISTORY, help="the file that figures are kept in")
    arguments = parser.parse_args()
    if arguments.verb == "report":
        print(report(arguments.history))
        return 0
    print(f"seed {arguments.seed}", flush=True)
    found = uvloop.run(run(arguments))
    for violation in found["first_violations"]:
        print(violation)
    episodes = len(found["episodes"])
    print(
        f"seed {arguments.seed}: {found['events']} events, {found['deliveries']} deliveries, {episodes} episodes of faults"
    )
    print(
        f"violations {found['violations']}, wrong answers {found['wrong_answers']}, unanswered {found['unanswered']}"
    )
    print(
        f"watchers {found['watchers']}, tokens expired {found['tokens_expired']}, runs deleted {found['deleted']},"
        f" long polls {found['polls']}, in vain {found['polls_in_vain']}"
    )
    why = [*doubts(found), *_too_few(found, arguments), *exceeded(found, arguments.slack)]
    for line in exceeded(found, 1):
        print(f"beyond the goals: {line}")
    print("\n".join(why) or "Nothing was found.")
    return 1 if why else 0


def _too_few(found: Summary, arguments: argparse.Namespace) -> list[str]:
    """All sorts of watchers have to have been there; and in five minutes something has to have been tried."""
    if arguments.reconnects:
        return []
    missing, kinds = not_there(found), len(occurred(found))
    if min(arguments.seconds, found["seconds"]) < LONG_SECONDS:  # ended early by a signal, it was a short one
        return missing
    if not found["tokens_expired"]:
        missing.append("no token expired while it was used")
    if not found["polls_in_vain"]:
        missing.append("no poll waited in vain, so none could say what was not so")
    if not arguments.only and kinds < LEAST_KINDS:
        missing.append(
            f"{kinds} kinds of faults in {found['seconds']:g} s; {LEAST_KINDS} at least were to be tried"
        )
    return missing


if __name__ == "__main__":
    sys.exit(main())
