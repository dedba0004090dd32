"""The agent of the demo: a real pydantic-ai agent with a tool, on a model that needs no network.

The framework is real: it streams parts and deltas, calls the tool, and goes back to the model with what the tool
said. Only the model is written down here, word by word. `events` gives its stream under AG-UI's event names.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic_ai import (
    Agent,
    AgentStreamEvent,
    FunctionToolResultEvent,
    ModelMessage,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

type Event = tuple[str, dict[str, Any]]
"""An event's type and its data."""

QUESTION = "Should I take the bicycle to work tomorrow?"

_BEFORE = "Let me look at tomorrow's weather first. "
_ARGUMENTS = '{"city": "Lisbon", "day": "tomorrow"}'
_ANSWER = (
    "Yes, take the bicycle. The morning stays dry and mild, with a light wind from the west that you will have at "
    "your back on the way in. Rain comes in only after six, so leave the office by half past five and you are home "
    "before it. If the day runs late, there is room for the bicycle in the last carriage of the train. "
    "And take your lights along: it gets dark before you are home."
)


def _tokens(text: str) -> list[str]:
    """Cut `text` about as a model does: short words whole, long ones in pieces."""
    return re.findall(r"\s*\S{1,4}\s*$|\s*\S{1,4}", text)


def weather_agent(pace_seconds: float) -> Agent[None, str]:
    """An agent that answers `QUESTION`, one token every `pace_seconds`."""

    async def model(
        messages: list[ModelMessage], _: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        first_turn = len(messages) == 1
        for token in _tokens(_BEFORE if first_turn else _ANSWER):
            await asyncio.sleep(pace_seconds)
            yield token
        if first_turn:
            yield {1: DeltaToolCall(name="forecast", tool_call_id="call-1")}
            for token in _tokens(_ARGUMENTS):
                await asyncio.sleep(pace_seconds)
                yield {1: DeltaToolCall(json_args=token)}

    async def forecast(city: str, day: str) -> str:
        """The weather of a city."""
        await asyncio.sleep(10 * pace_seconds)
        return f"{city} {day}: 17 °C, wind west 2, rain from 18:00"

    return Agent(FunctionModel(stream_function=model), tools=[forecast])


async def events(agent: Agent[None, str]) -> AsyncIterator[Event]:
    """Ask the agent; what it does, as AG-UI events, token by token."""
    messages = 0
    async with agent.run_stream_events(QUESTION) as stream:
        async for event in stream:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                messages += 1
            for ag_ui in _ag_ui(event, f"message-{messages}"):
                yield ag_ui


def _ag_ui(event: AgentStreamEvent | object, message_id: str) -> Iterator[Event]:
    """What one event of pydantic-ai is called in AG-UI. Events that say nothing new give none."""
    message = {"messageId": message_id}
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            yield "TEXT_MESSAGE_START", {**message, "role": "assistant"}
            yield "TEXT_MESSAGE_CONTENT", {**message, "delta": text}
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            yield "TEXT_MESSAGE_CONTENT", {**message, "delta": text}
        case PartEndEvent(part=TextPart()):
            yield "TEXT_MESSAGE_END", message
        case PartStartEvent(part=ToolCallPart(tool_name=name, tool_call_id=call)):
            yield "TOOL_CALL_START", {"toolCallId": call, "toolCallName": name}
        case PartDeltaEvent(delta=ToolCallPartDelta(args_delta=str(text), tool_call_id=call)):
            yield "TOOL_CALL_ARGS", {"toolCallId": call, "delta": text}
        case PartEndEvent(part=ToolCallPart(tool_call_id=call)):
            yield "TOOL_CALL_END", {"toolCallId": call}
        case FunctionToolResultEvent(part=result):
            yield "TOOL_CALL_RESULT", {"toolCallId": result.tool_call_id, "content": str(result.content)}
        case _:
            pass
