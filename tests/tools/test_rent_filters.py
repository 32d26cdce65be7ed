"""The filters of a rent: each holds whoever picks the node, and of what came out, and none is dropped."""

from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.toolkit.listing import read_listing
from tests.harness import Agent, agent_on
from tests.wires import Forward, Wire, editing, eventually, living, offers, rents, rows_of

NEW = ("rent_by_spec", "rent_idempotency", "run_record")
OLD = ("run_record",)
_WITH_FILTERS = ("list_gpus", "quote_rental", "rent_pod", "run_job")

Row = dict[str, Any]


def truth_of(row: Row) -> dict[str, Any]:
    """What a node has, by the API's own row."""
    return {
        "country": (row["location"] or {}).get("country_code"),
        "tier": row["tier"],
        "nvlink": row["nvlink"],
        "cuda": row["max_cuda_version"] or 0,
        "download": row["effective_download_speed_mbps"] or 0,
        "per_gpu": row["price_per_gpu"],
    }


async def node_of(sandbox: Sandbox) -> Row:
    """The row, as the market listed it, of the node that the one pod was rented on."""
    (record,) = rents(sandbox)
    twin = Sandbox(seed=7, speed=0)
    return next(row for row in await rows_of(twin, "full") if row["id"] == record["executor_id"])


WANTED: list[tuple[dict[str, Any], Any]] = [
    ({"country": "EU"}, lambda node, price: node["country"] in {"DE", "NL", "FI", "FR"}),
    ({"country": "!US,!CA"}, lambda node, price: node["country"] not in {None, "US", "CA"}),
    ({"country": "jp,sg"}, lambda node, price: node["country"] in {"JP", "SG"}),
    ({"tier": "secure", "min_cuda": 12.8}, lambda node, price: node["tier"] == "secure" and node["cuda"] >= 12.8),
    ({"tier": "spot"}, lambda node, price: node["tier"] == "spot"),
    ({"min_download_mbps": 1500}, lambda node, price: node["download"] >= 1500),
    ({"nvlink": True, "gpu_count": 2}, lambda node, price: node["nvlink"] is True),
    ({"max_usd_per_hour": 0.9, "gpu_count": 4}, lambda node, price: price <= 0.9),
    ({"max_usd_per_hour": 2}, lambda node, price: price <= 2),
]


@pytest.mark.parametrize("features", [NEW, OLD], ids=["by spec", "old server"])
@pytest.mark.parametrize("gpu_type", ["", "RTX4090", "A100 SXM4 80GB"])
@pytest.mark.parametrize(("filters", "holds"), WANTED, ids=[str(filters) for filters, _ in WANTED])
async def test_the_cheapest_that_meets_every_filter_is_rented(
    features: tuple[str, ...], gpu_type: str, filters: dict[str, Any], holds: Any
) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=features)
    wanted = filters | ({"gpu_type": gpu_type} if gpu_type else {})
    async with agent_on(sandbox) as agent:
        listed = await agent.call("list_gpus", **({"gpu_count": 1} | wanted), sort="price_per_gpu", limit=100)
        result = await agent.raw("rent_pod", name="train", wait_seconds=0, **wanted)
    sure = [offer for offer in listed["offers"] if "rentable_gpus" in offer]
    if result.is_error:
        assert not sure
        assert rents(sandbox) == []
        return
    (record,) = rents(sandbox)
    assert holds(truth_of(await node_of(sandbox)), record["price_per_hour"])
    assert record["price_per_hour"] <= sure[0]["price_per_hour_usd"] + 1e-6


async def test_what_lium_can_be_told_is_left_to_lium(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = {"gpu_type": "RTX4090", "gpu_count": 2, "max_usd_per_hour": 2, "country": "usa"}
        await agent.call("rent_pod", name="a", **wanted, min_download_mbps=100, wait_seconds=0)
        (sent,) = wire.sent("POST", "/executors/rent-by-spec")
        assert b'"max_price_per_gpu_hour":1.0' in sent.content
        assert b'"country":"US"' in sent.content
        assert b'"min_download_mbps":100' in sent.content
        own: list[Row] = [{"tier": "secure"}, {"country": "EU"}, {"country": "!US"}, {"min_cuda": 12}]
        for number, more in enumerate(own):
            await agent.call("rent_pod", name=f"b{number}", gpu_type="RTX4090", **more, wait_seconds=0)
        assert len(wire.sent("POST", "/executors/rent-by-spec")) == 1


async def test_a_named_node_is_held_against_the_filters(sandbox: Sandbox, agent: Agent) -> None:
    node = next(row for row in await offers(sandbox, "4090") if (row["location"] or {}).get("country_code") == "US")
    named = {"name": "train", "executor_id": node["id"]}
    unmet = {"gpu_type": "H100", "min_vram_gb": 80, "country": "!US", "nvlink": True, "max_usd_per_hour": 0.01}
    failure = await agent.refused("rent_pod", **named, **unmet)
    assert failure.code == "filters_not_met"
    for said in (
        "gpu_type=H100 (it has RTX4090)",
        "min_vram_gb=80 (it has 24)",
        "country=!US (it is in US)",
        "nvlink (it has none)",
        "max_usd_per_hour=0.01 (it costs $",
    ):
        assert said in failure.text
    assert "Nothing was changed." in failure.text
    assert rents(sandbox) == []
    met = {"gpu_type": "4090", "min_vram_gb": 24, "country": "!EU", "max_usd_per_hour": 99}
    assert (await agent.call("rent_pod", **named, **met, wait_seconds=0))["outcome"] == "pending"


@pytest.mark.parametrize(
    ("filters", "stated", "said"),
    [
        ({"country": "EU"}, {"location": {"country_code": "US"}}, "it is in US, not in"),
        ({"country": "!US"}, {"location": {"country_code": "US"}}, "it is in US"),
        ({"tier": "secure"}, {"tier": "spot"}, "of the tier spot, not secure"),
        ({"nvlink": True, "gpu_count": 2}, {"nvlink": False}, "not on NVLink"),
        ({"min_cuda": 12}, {"max_cuda_version": 11.8}, "CUDA 11.8"),
        ({"min_download_mbps": 100}, {"effective_download_speed_mbps": 9}, "9 Mbps"),
    ],
    ids=str,
)
async def test_what_came_out_otherwise_is_given_back(sandbox: Sandbox, filters: Row, stated: Row, said: str) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"executor": pod.get("executor", {}) | stated}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", name="train", hours=2, wait_seconds=60, **filters)
        assert failure.code == "not_as_asked"
        assert said in failure.text
        for _ in range(4):  # one that still starts cannot be removed at once
            sandbox.clock.advance(minutes=1)
            await agent.call("list_pods")
    assert living(sandbox) == []


async def test_a_ceiling_for_the_pod_holds_of_what_came_out(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"price": 2.01}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", name="t", gpu_type="RTX4090", max_usd_per_hour=2, hours=1)
    assert failure.code == "dearer_than_allowed"


async def test_a_country_that_lium_does_not_say_of_the_pod_is_told(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"executor": pod.get("executor", {}) | {"location": None}}))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="t", country="!US", hours=1)
    assert "does not say which country it is in" in " ".join(rented["warnings"])


async def test_the_limit_on_countries_holds_beside_the_filter(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, allow_countries="DE,US") as agent:
        rented = await agent.call("rent_pod", name="t", country="EU", min_vram_gb=24, hours=1)
        assert rented["outcome"] == "done"
    assert (await node_of(sandbox))["location"]["country_code"] == "DE"
    async with agent_on(sandbox, allow_countries="US") as agent:
        failure = await agent.refused("rent_pod", name="u", country="EU", min_vram_gb=24, hours=1)
    assert failure.code == "policy_refused"
    assert len(rents(sandbox)) == 1


@pytest.mark.parametrize("way", ["quote", "pod", "pods", "limit"])
async def test_a_node_that_is_quoted_above_its_listing_does_not_hide_the_next(sandbox: Sandbox, way: str) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox) as agent:
        cheapest = (await agent.call("quote_rental", gpu_type="RTX4090"))["executor_id"]
    wire.on("GET", f"/executors/{cheapest}/quote", editing(lambda quote: quote | {"price_per_hour": 5.0}))
    limit = 1.0 if way == "limit" else None
    wanted: Row = {"gpu_type": "RTX4090", "min_ram_gb": 1} | ({} if limit else {"max_usd_per_gpu_hour": 1})
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=limit) as agent:
        if way == "quote":
            shown = [await agent.call("quote_rental", **wanted)]
        else:
            rented = await agent.call("rent_pod", name="train", count=2 if way == "pods" else 1, **wanted)
            shown = rented.get("pods") or [rented]
        assert cheapest not in [row.get("executor_id") or row["pod"]["executor_id"] for row in shown]
        assert len(wire.sent("GET", f"/executors/{cheapest}/quote")) == 1
        named = await agent.refused("rent_pod", name="other", executor_id=cheapest, **wanted)
        assert named.code == ("policy_refused" if limit else "price_above_ceiling")


async def test_nodes_that_are_all_quoted_above_their_listings_are_tried_within_a_bound(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", editing(lambda quote: quote | {"price_per_hour": 5.0}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("quote_rental", gpu_type="RTX4090", max_usd_per_gpu_hour=1)
    assert failure.code == "price_above_ceiling"
    assert 1 < len(wire.sent("GET", "/executors/*/quote")) <= 4


async def test_a_node_that_rents_only_several_gpus_is_named_with_its_count(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    whole = next(row for row in await offers(sandbox) if row.get("min_gpu_count_for_rental", 0) is None)
    wire.on("GET", "/executors", editing(lambda rows: [row for row in rows if row["id"] == whole["id"]]))
    count = int(whole["gpu_count"])
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", name="train", min_ram_gb=1, hours=1)
        assert f"set gpu_count={count} to rent it" in failure.text
        assert whole["id"] in failure.text
        few = await agent.refused("rent_pod", name="train", min_ram_gb=1, hours=1, max_usd_per_hour=0.001)
        assert "set gpu_count" not in few.text
    assert rents(sandbox) == []


async def test_nvlink_that_only_the_wiring_states_is_the_same_for_all_tools(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    node = next(row for row in await offers(sandbox) if row.get("min_gpu_count_for_rental") == 1)

    async def one_node(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        # As Lium does, whose own filter knows only the field of the node.
        row = node | {"nvlink": None, "interconnect": {"nvlink": True}}
        return httpx2.Response(200, json=[] if "nvlink" in request.url.params else [row])

    wire.on("GET", "/executors", one_node)
    async with agent_on(sandbox, transport=wire) as agent:
        listed = await agent.call("list_gpus", nvlink=True)
        assert [row["executor_id"] for row in listed["offers"]] == [node["id"]]
        quoted = await agent.call("quote_rental", nvlink=True, executor_id=node["id"])
        assert quoted["executor_id"] == node["id"]


def test_a_filter_is_spelt_the_same_wherever_it_is_taken() -> None:
    schemas = {item.name: item.tool.input_schema["properties"] for item in read_listing()}
    filters = schemas["list_gpus"].keys() & schemas["rent_pod"].keys() - {"wait_seconds"}
    assert {"country", "tier", "nvlink", "max_usd_per_hour", "min_ram_gb"} <= filters
    assert filters <= schemas["quote_rental"].keys()
    assert {"country", "tier", "gpu_type", "min_vram_gb"} <= schemas["run_job"].keys()
    for name in ("country", "tier"):
        said = {tool: (schemas[tool][name]["description"], schemas[tool][name].get("enum")) for tool in _WITH_FILTERS}
        assert len(set(map(str, said.values()))) == 1, said


@pytest.mark.parametrize("wanted", [{"country": "EU"}, {"country": ["US", "CA"]}, {"tier": "secure"}, {"tier": "spot"}])
async def test_a_quote_and_a_run_take_the_node_that_a_rent_takes_and_name_it(wanted: dict[str, Any]) -> None:
    sandbox = Sandbox(seed=7, speed=0)
    async with agent_on(sandbox) as agent:
        planned = await agent.call("rent_pod", name="train", hours=1, dry_run=True, **wanted)
        quoted = await agent.call("quote_rental", hours=1, **wanted)
        for name in ("executor_id", "tier", "country", "gpu_type", "price_per_hour_usd"):
            assert quoted[name] == planned[name]
        await agent.call("run_job", name="fit", command="true", max_total_usd=5, wait_seconds=0, **wanted)
        await eventually(lambda: bool(rents(sandbox)))
    assert (await node_of(sandbox))["id"] == planned["executor_id"]
