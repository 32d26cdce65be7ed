"""A client that knows the API only by its contract, and holds every answer against it. (No double: it only asks.)"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from lium_mcp.sandbox import API_KEY, Sandbox

CONTRACT = Path(__file__).parents[1] / "contract" / "openapi.yaml"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEX test@example"
BASE_URL = "http://sandbox/api"
METHODS = ("get", "post", "put", "patch", "delete")


@cache
def contract() -> dict[str, Any]:
    with CONTRACT.open() as file:
        return dict(yaml.load(file, Loader=yaml.CSafeLoader))


@cache
def operations() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Method, path and definition of every operation, by its id."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, item in contract()["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


@cache
def validator(operation_id: str, status: int, content_type: str) -> Draft202012Validator | None:
    responses = operations()[operation_id][2]["responses"]
    key = next((key for key in (str(status), f"{status // 100}XX") if key in responses), None)
    assert key is not None, f"{operation_id} answered {status}, which its contract does not know"
    response = responses[key]
    if "$ref" in response:
        response = contract()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    media = response["content"].get(content_type)
    assert media is not None, f"{operation_id} {status} answered {content_type}"
    if content_type != "application/json":
        return None
    schema = {**media["schema"], "components": contract()["components"]}
    return Draft202012Validator(schema, format_checker=FormatChecker())


class Wire:
    """Calls operations by their id."""

    def __init__(self, client: httpx2.AsyncClient, *, checks: bool = True) -> None:
        self.http = client
        self.checks = checks
        self.exercised: set[str] = set()

    async def send(
        self,
        operation_id: str,
        *,
        key: str | None = API_KEY,
        session: str | None = None,
        json: Any = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        **path_params: str,
    ) -> httpx2.Response:
        method, path, _ = operations()[operation_id]
        sent = dict(headers or {})
        if session is not None:
            sent["Authorization"] = f"Bearer {session}"
        elif key is not None:
            sent["X-API-KEY"] = key
        response = await self.http.request(
            method, BASE_URL + path.format(**path_params), json=json, params=query, headers=sent, content=content
        )
        if self.checks:
            self.check(operation_id, response)
            if response.is_success:
                self.exercised.add(operation_id)
        return response

    async def ok(self, operation_id: str, **call: Any) -> Any:
        response = await self.send(operation_id, **call)
        assert response.is_success, f"{operation_id}: {response.status_code} {response.text}"
        return response.json() if response.headers["content-type"] == "application/json" else response.text

    async def refused(self, operation_id: str, status: int, code: str | None = None, **call: Any) -> Any:
        response = await self.send(operation_id, **call)
        assert response.status_code == status, f"{operation_id}: {response.status_code} {response.text}"
        body = response.json()
        if code is not None:
            assert (body.get("error") or body)["code"] == code
        return body

    @staticmethod
    def check(operation_id: str, response: httpx2.Response) -> None:
        """Hold an answer against the contract."""
        assert response.headers["x-request-id"].startswith("req-")
        assert response.headers["date"].endswith("GMT")
        content_type = response.headers["content-type"].partition(";")[0]
        check = validator(operation_id, response.status_code, content_type)
        if check is not None:
            errors = [f"{error.json_path}: {error.message}" for error in check.iter_errors(response.json())]
            assert not errors, f"{operation_id} {response.status_code}: {errors[:3]}"

    # what most tests need first

    async def listing(self, **query: Any) -> list[dict[str, Any]]:
        """Return the summary listing, without the check, which takes long for 200 rows and is made elsewhere."""
        response = await self.http.get(f"{BASE_URL}/executors", params={"view": "summary", **query})
        return list(response.raise_for_status().json())

    async def node(self, gpu: str = "A100", *, splits: bool | None = True, gpus: int = 1) -> dict[str, Any]:
        """Return a free node of this type with at least that many GPUs."""
        for row in await self.listing():
            smallest = row.get("min_gpu_count_for_rental", "unsaid")
            fits = splits is None or (smallest == 1 if splits else smallest is None)
            if gpu in row["machine_name"] and fits and int(row["gpu_count"]) >= gpus <= row["available_gpu_count"]:
                return dict(row)
        raise LookupError(gpu)

    async def template(self, image: str = "daturaai/pytorch") -> str:
        rows = (await self.http.get(f"{BASE_URL}/templates")).json()
        return next(str(row["id"]) for row in rows if row["docker_image"] == image)

    async def rent(self, node: dict[str, Any] | None = None, *, key: str = API_KEY, **asked: Any) -> str:
        """Rent one GPU, or what is asked, and return the pod's id."""
        chosen = node or await self.node()
        body = await self.rent_body(**asked)
        answer = await self.ok("rentExecutor", executor_id=chosen["id"], json=body, key=key)
        return str(answer["pod_id"])

    async def rent_body(self, **asked: Any) -> dict[str, Any]:
        body = {"pod_name": "test", "user_public_key": [PUBLIC_KEY], "gpu_count": 1, **asked}
        if "template_id" not in body and "dockerfile_content" not in body:
            body["template_id"] = await self.template()
        return body

    async def running(self, sandbox: Sandbox, node: dict[str, Any] | None = None, **asked: Any) -> str:
        """Rent and turn the clock until the pod runs."""
        pod_id = await self.rent(node, **asked)
        sandbox.clock.advance(seconds=60)
        pod = await self.pod(pod_id)
        assert pod["status"] == "RUNNING"
        return pod_id

    async def pod(self, pod_id: str) -> dict[str, Any]:
        return dict(await self.ok("getPod", pod_id=pod_id))

    async def balance(self) -> float:
        return float((await self.ok("getMe"))["balance"])


@asynccontextmanager
async def wire_to(sandbox: Sandbox, *, checks: bool = True) -> AsyncIterator[Wire]:
    """Connect in memory; without checks for what is done hundreds of times."""
    headers = {"User-Agent": "wire/1.0"}
    async with httpx2.AsyncClient(transport=sandbox.transport(), headers=headers) as client:
        yield Wire(client, checks=checks)
