"""A language model at an address that follows a script: it calls one tool, then repeats what the tool answered.

It speaks as much of OpenAI's two protocols, Responses and Chat Completions, as agent frameworks need; no streaming.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.model_server import serving_a_model

CALL_ID = "call_1"


class ScriptedModel:
    """What the model was asked, and where it listens."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.base_url = ""
        self.requests: list[dict[str, Any]] = []

    def answer(self, path: str, request: dict[str, Any]) -> tuple[str, bytes]:
        self.requests.append(request)
        said = self._response(request) if path.endswith("/responses") else self._completion(request)
        return "application/json", json.dumps(said).encode()

    def _response(self, request: dict[str, Any]) -> dict[str, Any]:
        outputs = [item for item in request["input"] if item.get("type") == "function_call_output"]
        said: dict[str, Any]
        if outputs:
            content = {"type": "output_text", "text": f"The tool said {outputs[-1]['output']}", "annotations": []}
            said = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
        else:
            said = {"id": "f", "type": "function_call", "call_id": CALL_ID, "name": self.tool, "arguments": "{}"}
        return {
            "id": "r",
            "object": "response",
            "created_at": 0,
            "model": "scripted",
            "status": "completed",
            "output": [said],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
        }

    def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
        outputs = [message for message in request["messages"] if message["role"] == "tool"]
        said: dict[str, Any] = {"role": "assistant", "content": None}
        if outputs:
            said["content"] = f"The tool said {json.dumps(outputs[-1]['content'])}"
        else:
            function = {"name": self.tool, "arguments": "{}"}
            said["tool_calls"] = [{"id": CALL_ID, "type": "function", "function": function}]
        choice = {"index": 0, "message": said, "finish_reason": "stop" if outputs else "tool_calls"}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}


@contextmanager
def scripted_model(tool: str) -> Iterator[ScriptedModel]:
    """Serve a model that calls this tool."""
    model = ScriptedModel(tool)
    with serving_a_model(model.answer) as url:
        model.base_url = f"{url}/v1"
        yield model
