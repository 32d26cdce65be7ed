"""A language model at an address, which hosts take for the one that they pay for: it calls the tools of a script.

It streams in the four protocols that hosts speak: Anthropic's Messages, OpenAI's Responses and Chat Completions, and
Gemini's. Each turn of the conversation plays one step of the script; when all have been played it says that it is done.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from tests.model_server import serving_a_model

DONE: Final = "That was all."
Model = TypeVar("Model", bound="ScriptedModel")
_USED: Final[dict[str, Any]] = {"input_tokens": 10, "output_tokens": 2}


class Step(NamedTuple):
    """A call of a tool.

    Attributes:
        tool: As the host calls it.
        arguments: What it is called with.
        namespace: That of the tool, where the host has such.
    """

    tool: str
    arguments: dict[str, Any]
    namespace: str = ""


class ScriptedModel:
    """What the model was asked, and where it listens."""

    def __init__(self, script: Sequence[Step]) -> None:
        self.url = ""
        self.turns: list[dict[str, Any]] = []
        self._script = list(script)
        self._turn = threading.Lock()

    def next_step(self, request: dict[str, Any]) -> Step | str:
        """The next step of the script, or what is said in the end."""
        return self._script.pop(0) if self._script else DONE

    def answer(self, path: str, request: dict[str, Any]) -> tuple[str, bytes]:
        """The content type and the body of the answer to a request."""
        if "count_tokens" in path or "countTokens" in path:
            return "application/json", json.dumps({"input_tokens": 10, "totalTokens": 10}).encode()
        step: Step | str = DONE
        with self._turn:
            if request.get("tools"):  # hosts also ask for titles and the like
                self.turns.append(request)
                step = self.next_step(request)
                number = len(self.turns)
            else:
                number = 0
        make = next(make for part, make in _PROTOCOLS.items() if part in path)
        events = make(step, number)
        return "text/event-stream", "".join(_event(event) for event in events).encode()


def _event(event: dict[str, Any] | str) -> str:
    if isinstance(event, str):
        return f"data: {event}\n\n"
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n"


def _messages(step: Step | str, number: int) -> list[dict[str, Any] | str]:
    block: dict[str, Any]
    delta: dict[str, Any]
    if isinstance(step, str):
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": step}
    else:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": step.tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(step.arguments)}
    stop = {"stop_reason": "end_turn" if isinstance(step, str) else "tool_use", "stop_sequence": None}
    message: dict[str, Any] = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [],
    }
    return [
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None, "usage": _USED}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": _USED},
        {"type": "message_stop"},
    ]


def _responses(step: Step | str, number: int) -> list[dict[str, Any] | str]:
    item: dict[str, Any]
    if isinstance(step, str):
        content = {"type": "output_text", "text": step, "annotations": []}
        item = {"type": "message", "id": f"m{number}", "role": "assistant", "status": "completed", "content": [content]}
    else:
        item = {"type": "function_call", "id": f"f{number}", "call_id": f"call{number}", "name": step.tool}
        item |= {"arguments": json.dumps(step.arguments), "status": "completed"}
        item |= {"namespace": step.namespace} if step.namespace else {}
    response: dict[str, Any] = {
        "id": f"r{number}",
        "object": "response",
        "model": "scripted",
        "status": "in_progress",
        "output": [],
    }
    done = response | {"status": "completed", "output": [item], "usage": _USED | {"total_tokens": 12}}
    return [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]


def _completions(step: Step | str, number: int) -> list[dict[str, Any] | str]:
    delta: dict[str, Any] = {"role": "assistant", "content": step if isinstance(step, str) else None}
    if isinstance(step, Step):
        function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
        delta["tool_calls"] = [{"index": 0, "id": f"call{number}", "type": "function", "function": function}]
    chunk = {"id": f"c{number}", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
    reason = "stop" if isinstance(step, str) else "tool_calls"
    return [
        {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        "[DONE]",
    ]


def _gemini(step: Step | str, number: int) -> list[dict[str, Any] | str]:
    part: dict[str, Any] = {"text": step}
    if isinstance(step, Step):
        part = {"functionCall": {"name": step.tool, "args": step.arguments}}
    candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    used = {"promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12}
    return [{"candidates": [candidate], "usageMetadata": used, "responseId": f"r{number}"}]


_PROTOCOLS: Final = {
    "/messages": _messages,
    "/responses": _responses,
    "/chat/completions": _completions,
    "enerateContent": _gemini,
}


@contextmanager
def scripted_model(*script: Step) -> Iterator[ScriptedModel]:
    """Serve a model that plays this script."""
    with serving_scripted(ScriptedModel(script)) as model:
        yield model


@contextmanager
def serving_scripted(model: Model) -> Iterator[Model]:
    """Serve a model."""
    with serving_a_model(model.answer) as model.url:
        yield model
