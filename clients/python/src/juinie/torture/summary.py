"""The figures of one torture, as a dictionary that can be kept and added up, and as a table."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from juinie.torture.findings import Kind
from juinie.torture.scene import Scene
from juinie.torture.schedule import Episode
from juinie.torture.waited import NOT_LOOKED_AT, Waited

type Summary = dict[str, Any]

SORTS = ("whole", "types", "tail", "token")
"""Of watchers."""


def summary(
    scene: Scene,
    episodes: Sequence[Episode],
    seed: int,
    began_at: str,
    seconds: float,
    kinds: Sequence[str] = (),
    broken_off: str | None = None,
) -> Summary:
    """What was done and what was found. `kinds`: the faults that there were to choose from."""
    checker, figures = scene.checker, scene.figures
    return {
        "seed": seed,
        "began_at": began_at,
        "seconds": round(seconds, 1),
        "runs": checker.runs,
        "events": checker.events,
        "deliveries": checker.deliveries,
        "connections": figures.connections,
        "watchers": dict(figures.watchers),
        "tokens_expired": figures.tokens_expired,
        "deleted": figures.deleted,
        "deletes_unanswered": figures.deletes_unanswered,
        "turned_away": figures.turned_away,
        "left_out": scene.leave.left_out,
        "appends": figures.appends,
        "polls": figures.polls,
        "polls_in_vain": figures.polls_in_vain,
        "claims": figures.claims,
        "leases_lost": figures.leases_lost,
        "given_up": figures.given_up,
        "unanswered": figures.unanswered,
        "repeats": dict(scene.client.api.repeats),
        "wrong_answers": dict(figures.wrong_answers + scene.answers.wrong),
        "slowest_answer_seconds": round(scene.answers.slowest_seconds, 2),
        "dead_letters": figures.dead_letters,
        "violations": {kind.value: count for kind, count in checker.findings.counts.items()},
        "first_violations": [str(violation) for violation in checker.findings.kept[:20]],
        "kinds": sorted(kinds),
        "broken_off": broken_off,
        "episodes": [_episode(episode) for episode in episodes],
    }


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "names": episode.names,
        "areas": episode.areas,
        "began_at": episode.began_at,
        "lasted_seconds": round(episode.lasted_seconds, 2),
        "served_seconds": _rounded(episode.served_seconds),
        "recovery_seconds": _rounded(episode.recovery_seconds),
        "published_seconds": _rounded(episode.published_seconds),
        "live_seconds": _rounded(episode.live_seconds),
        "longest_delay_seconds": round(episode.longest_delay_seconds, 2),
        "p99_delay_seconds": round(episode.p99_delay_seconds, 2),
    }


def _rounded(seconds: Waited) -> Waited:
    return seconds if seconds is None or seconds == NOT_LOOKED_AT else round(seconds, 2)


def clean(found: Summary) -> bool:
    """Something was tried, and nothing was found."""
    return not doubts(found)


def doubts(found: Summary) -> list[str]:
    """Why this torture was not a good one, a line each: what was found, and what was not tried."""
    return [*faults_of(found), *not_tried(found)]


def faults_of(found: Summary) -> list[str]:
    """What is wrong with the deployment, a line each."""
    episodes = found["episodes"]
    never_well = sum(episode["recovery_seconds"] is None for episode in episodes)
    never_published = sum(episode["published_seconds"] is None for episode in episodes)
    never_live = sum(episode["live_seconds"] is None for episode in episodes)
    told = {
        f"violations: {found['violations']}": found["violations"],
        f"wrong answers: {found['wrong_answers']}": found["wrong_answers"],
        f"{found['unanswered']} appends were never answered": found["unanswered"],
        f"not well again after {never_well} faults": never_well,
        f"not all published after {never_published} faults": never_published,
        f"a gateway did not read Kafka again after {never_live} faults": never_live,
    }
    return [why for why, true in told.items() if true]


def not_tried(found: Summary) -> list[str]:
    """What kept this torture from trying what it was to try, a line each."""
    told = {
        f"broken off by {found['broken_off']}": found["broken_off"],
        "no event was written and checked": not found["events"],
        "no event was delivered": not found["deliveries"],
        "there were faults to inject, and none was": found["kinds"] and not found["episodes"],
    }
    return [why for why, true in told.items() if true]


def not_there(found: Summary) -> list[str]:
    """Which watchers, and what else of the load, a torture of everything has to have, and had not, a line each."""
    missing = [
        f"no watcher of the sort {sort} was let in" for sort in SORTS if not found["watchers"].get(sort)
    ]
    told = {"no run was deleted": found["deleted"], "no long poll was answered": found["polls"]}
    return [*found["left_out"], *missing, *(why for why, there in told.items() if not there)]


def occurred(found: Summary) -> set[str]:
    """The kinds of faults that were injected, and healed."""
    return {name for episode in found["episodes"] for name in episode["names"]}


def told(episode: Episode) -> str:
    """One episode, for whoever looks on."""
    return (
        f"{' + '.join(episode.names)}: {episode.lasted_seconds:.1f} s, served {_after(episode.served_seconds)},"
        f" well again {_after(episode.recovery_seconds)}, all published {_after(episode.published_seconds)},"
        f" live again {_after(episode.live_seconds)},"
        f" latest event {episode.longest_delay_seconds:.1f} s (99 of 100: {episode.p99_delay_seconds:.1f} s)"
    )


def _after(seconds: Waited) -> str:
    if seconds == NOT_LOOKED_AT:
        return f"({NOT_LOOKED_AT})"
    return "never" if seconds is None else f"after {seconds:.1f} s"


def added_up(all_of_them: Sequence[Summary]) -> list[tuple[str, str]]:
    """Names and figures over several summaries, one line each."""
    episodes = [episode for one in all_of_them for episode in one["episodes"]]
    faults = Counter(name for episode in episodes for name in episode["names"])
    violations = _counted(one["violations"] for one in all_of_them)
    lines = [
        ("seeds", ", ".join(sorted({str(one["seed"]) for one in all_of_them}))),
        ("dates", ", ".join(sorted({one["began_at"][:10] for one in all_of_them}))),
        ("minutes", f"{sum(one['seconds'] for one in all_of_them) / 60:.0f}"),
        *((name, f"{sum(one[name] for one in all_of_them):,}") for name in ("runs", "events", "deliveries")),
        ("connections of watchers", f"{sum(one['connections'] for one in all_of_them):,}"),
        *_watchers(all_of_them),
        ("runs deleted", _deleted(all_of_them)),
        ("appends", _appends(all_of_them)),
        ("long polls, in vain", _polls(all_of_them)),
        ("claims by workers, leases lost", _claims(all_of_them)),
        *_faults(faults, {kind for one in all_of_them for kind in one.get("kinds", ())}),
        ("the slowest answer that no fault held up", _slowest(all_of_them)),
        *((f"violations: {kind}", str(violations[kind])) for kind in Kind),
        ("dead letters that came", _dead_letters(all_of_them)),
        ("wrong answers", str(_counted(one["wrong_answers"] for one in all_of_them).total())),
    ]
    return [*lines, *_recoveries(episodes)]


def table(lines: Iterable[tuple[str, str]], title: str) -> Table:
    """For a terminal."""
    made = Table("", "", title=title, title_justify="left", show_header=False)
    for line in lines:
        made.add_row(*line)
    return made


def _appends(all_of_them: Sequence[Summary]) -> str:
    appends, given_up, unanswered = (
        sum(one[name] for one in all_of_them) for name in ("appends", "given_up", "unanswered")
    )
    return f"{appends:,} ({given_up:,} given up on purpose, {unanswered:,} unanswered)"


def _watchers(all_of_them: Sequence[Summary]) -> list[tuple[str, str]]:
    """By sort; one that was not there is told as well."""
    watchers = _counted(one.get("watchers", {}) for one in all_of_them)
    expired = sum(one.get("tokens_expired", 0) for one in all_of_them)
    return [
        *((f"watchers: {sort}", f"{watchers[sort]:,}") for sort in SORTS),
        ("tokens used until they were refused", f"{expired:,}"),
    ]


def _deleted(all_of_them: Sequence[Summary]) -> str:
    deleted, unanswered, away = (
        sum(one.get(name, 0) for one in all_of_them)
        for name in ("deleted", "deletes_unanswered", "turned_away")
    )
    return f"{deleted:,} ({unanswered:,} more without an answer), {away:,} watchers turned away"


def _polls(all_of_them: Sequence[Summary]) -> str:
    polls, in_vain = (sum(one.get(name, 0) for one in all_of_them) for name in ("polls", "polls_in_vain"))
    return f"{polls:,}, {in_vain:,}"


def _claims(all_of_them: Sequence[Summary]) -> str:
    claims, lost = (sum(one.get(name, 0) for one in all_of_them) for name in ("claims", "leases_lost"))
    return f"{claims:,}, {lost:,}"


def _faults(injected: Counter[str], kinds: set[str]) -> list[tuple[str, str]]:
    left_out = ", ".join(sorted(kinds - injected.keys()))
    lines = [
        ("faults", f"{injected.total()}, of {len(injected)} kinds out of {len(kinds | injected.keys())}")
    ]
    return [*lines, *([("kinds that did not occur", left_out)] if left_out else [])]


def _slowest(all_of_them: Sequence[Summary]) -> str:
    return f"{max(one.get('slowest_answer_seconds', 0.0) for one in all_of_them):.1f} s"


def _dead_letters(all_of_them: Sequence[Summary]) -> str:
    """Of those that looked; and how many did not."""
    came = [one.get("dead_letters", NOT_LOOKED_AT) for one in all_of_them]
    looked = [count for count in came if count != NOT_LOOKED_AT]
    return _with_unseen(str(sum(looked)) if looked else "", len(came) - len(looked))


def _recoveries(episodes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """By area, of the episodes with one fault."""
    lines = list[tuple[str, str]]()
    for area in sorted({episode["areas"][0] for episode in episodes if len(episode["areas"]) == 1}):
        mine = [episode for episode in episodes if list(episode["areas"]) == [area]]
        well = [episode["recovery_seconds"] for episode in mine if episode["recovery_seconds"] is not None]
        if well:
            lines.append((f"well again: {area}", _spread(well)))
        served = [seconds for episode in mine if (seconds := episode.get("served_seconds")) is not None]
        if served:
            lines.append((f"served, {area} broken", _spread(served)))
        for name, key in (("all published", "published_seconds"), ("live again", "live_seconds")):
            waited = [seconds for episode in mine if (seconds := episode.get(key)) is not None]
            seen = [seconds for seconds in waited if seconds != NOT_LOOKED_AT]
            if waited:
                figures = _with_unseen(_spread(seen) if seen else "", len(waited) - len(seen))
                lines.append((f"{name}: {area}", figures))
        if len(well) < len(mine):
            lines.append((f"not well again: {area}", str(len(mine) - len(well))))
    return lines


def _spread(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s, {len(seconds)} times"


def _with_unseen(figures: str, unseen: int) -> str:
    return ", ".join(filter(None, (figures, f"{NOT_LOOKED_AT}, {unseen} times" if unseen else "")))


def _counted(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return total
