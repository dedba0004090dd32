"""What the demo shows: the agent on the left, the watcher on the right, and a tick for every event below.

Both sides are drawn from events by the same code. On the right, what came while the watcher was connected is plain and
what was replayed to it after a drop is yellow.
"""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

LIVE, REPLAYED, QUIET = "default", "yellow", "bright_black"
AWAY = "red"


@dataclass
class Transcript:
    """A run as text, put together event by event."""

    text: Text = field(default_factory=Text)

    def trimmed(self) -> Text:
        """The text without the line ends after its last message."""
        text = self.text.copy()
        text.rstrip()
        return text

    def add(self, event_type: str, data: dict[str, Any], style: str = LIVE) -> None:
        match event_type:
            case "TEXT_MESSAGE_CONTENT":
                self.text.append(data["delta"], style)
            case "TEXT_MESSAGE_END":
                self.text.append("\n\n")
            case "TOOL_CALL_START":
                self.text.append(f"⚙ {data['toolCallName']} ", f"bold {style}")
            case "TOOL_CALL_ARGS":
                self.text.append(data["delta"], f"italic {style}")
            case "TOOL_CALL_RESULT":
                self.text.append(f"\n  {data['content']}\n\n", f"italic {style}")
            case _:
                pass


@dataclass
class Screen:
    """The state of both sides. Rich draws it (`__rich__`) as often as it likes."""

    question: str
    agent: Transcript = field(default_factory=Transcript)
    watcher: Transcript = field(default_factory=Transcript)
    ticks: Text = field(default_factory=Text)
    history: list[Text] = field(default_factory=list[Text])
    written: str = "starting"
    state: Text = field(default_factory=lambda: Text("not connected", QUIET))

    # What the watcher tells (see run_watcher.Audience).

    def connected(self, after_seq: int) -> None:
        if after_seq:
            self._note("↻", f"back, with Last-Event-ID: {after_seq}", "cyan")
        self.state = Text("● connected", "green")

    def received(self, event: dict[str, Any], replayed: bool) -> None:
        missed = replayed and bool(self.history)
        self.watcher.add(event["type"], event["data"], REPLAYED if missed else LIVE)
        self.ticks.append("▪", REPLAYED if missed else "green")

    def caught_up(self, replayed: int) -> None:
        if self.history:
            self._note("»", f"{replayed} events replayed, now live", REPLAYED)

    def dropped(self, after_seq: int) -> None:
        self._note("✂", f"connection lost after event {after_seq}", AWAY)
        self.ticks.append("✂", AWAY)
        self.state = Text("○ away: the agent goes on, nobody watches", AWAY)

    def ended(self, status: str) -> None:
        self.state = Text(f"■ stream.end: {status}", "bold green")

    def _note(self, sign: str, text: str, style: str) -> None:
        self.history.append(Text(f"{sign} {text}", style))

    # How it looks.

    def __rich__(self) -> RenderableType:
        sides = Table.grid(expand=True, padding=(0, 1))
        sides.add_column(ratio=1)
        sides.add_column(ratio=1)
        sides.add_row(self._agent_side(), self._watcher_side())
        return Group(
            sides, Panel(self.ticks, title="events at the watcher", title_align="left", border_style=QUIET)
        )

    def _agent_side(self) -> Panel:
        question = Text(f"» {self.question}\n", "bold")
        return self._side("the agent", Text(self.written, QUIET), question, self.agent.trimmed())

    def _watcher_side(self) -> Panel:
        return self._side("the watcher", self.state, self.watcher.trimmed(), Text(), *self.history)

    def _side(self, title: str, state: Text, *content: RenderableType) -> Panel:
        return Panel(
            Group(state, Rule(style=QUIET), *content), title=title, title_align="left", border_style=QUIET
        )
