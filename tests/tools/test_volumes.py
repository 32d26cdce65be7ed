"""Volumes: storage that outlives pods, one pod at a time, and never deleted from under one."""

from collections.abc import Callable
from typing import Any

import pytest

from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from tests.harness import Agent, Mode, Person, agent_on
from tests.wires import Row, Wire, answering, ask, editing, rent, truth

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


def ids(sandbox: Sandbox) -> set[str]:
    return {row["id"] for row in truth(sandbox, "volumes")}


async def made(sandbox: Sandbox, name: str, **headers: str) -> str:
    return str((await ask(sandbox, "POST", "/volumes", {"name": name}, **headers))["id"])


@both_eras
async def test_a_volume_is_created_attached_and_kept_when_its_pod_goes(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        created = await agent.call("create_volume", name="data", description="training set")
        assert created["description"] == "training set"
        assert "attached_to" not in created
        volume_id = created["volume_id"]
        assert ids(sandbox) == {volume_id}
        rented = await agent.call("rent_pod", name="worker", gpu_type="RTX4090", volume="data", wait_seconds=120)
        assert rented["outcome"] == "done"
        sandbox.clock.advance(hours=4)
        (row,) = (await agent.call("list_volumes"))["volumes"]
        assert row["attached_to"] == f"worker ({rented['pod_id']})"
        assert row["size_gb"] > 0.9
        assert (await agent.call("list_volumes", volume="data")) == {"volumes": [row], "total": 1}
        await ask(sandbox, "DELETE", f"/pods/{rented['pod_id']}")
        sandbox.clock.advance(minutes=1)
        (kept,) = (await agent.call("list_volumes", volume=volume_id))["volumes"]
        assert "attached_to" not in kept
        assert kept["size_gb"] >= row["size_gb"]


@both_eras
async def test_one_pod_at_a_time_has_a_volume(sandbox: Sandbox, mode: Mode) -> None:
    volume_id = await made(sandbox, "data")
    first_pod = await rent(sandbox, "first", volume_id=volume_id)
    second_pod = await rent(sandbox, "second")
    async with agent_on(sandbox, mode=mode) as agent:
        for tool, arguments in (
            ("rent_pod", {"name": "third", "gpu_type": "RTX4090", "volume": "data"}),
            ("reboot_pod", {"pod": "second", "volume": "data"}),
        ):
            refused = await agent.refused(tool, **arguments)
            assert refused.code == "volume_in_use"
            assert first_pod in refused.text
        again = await agent.call("reboot_pod", pod="first", volume="data", wait_seconds=60)
    assert again["outcome"] == "done", "its own volume is free for the pod that has it"
    assert len(truth(sandbox, "rents")) == 2
    mounted = {pod["id"]: (pod["volume"] or {}).get("id") for pod in truth(sandbox, "pods")}
    assert mounted == {first_pod: volume_id, second_pod: None}


async def test_a_reboot_for_a_volume_that_another_pod_has_is_refused_before_anybody_is_asked(sandbox: Sandbox) -> None:
    volume_id = await made(sandbox, "data")
    await rent(sandbox, "first", volume_id=volume_id)
    await rent(sandbox, "second")
    person = Person("yes")
    async with agent_on(sandbox, person=person) as agent:
        refused = await agent.refused("reboot_pod", pod="second", volume="data")
    assert refused.code == "volume_in_use"
    assert "remove_pod keeps the volume with its data" in refused.text
    assert person.questions == []
    assert {pod["status"] for pod in truth(sandbox, "pods")} == {"RUNNING"}


@both_eras
async def test_a_mounted_volume_is_not_deleted(sandbox: Sandbox, mode: Mode) -> None:
    volume_id = await made(sandbox, "data")
    pod_id = await rent(sandbox, "worker", volume_id=volume_id)
    async with agent_on(sandbox, mode=mode) as agent:
        refused = await agent.refused("delete_volume", volume="data")
        assert refused.code == "volume_in_use"
        assert pod_id in refused.text
        assert "Nothing was changed" in refused.text
        assert not [note for note in truth(sandbox, "requests") if note["method"] == "DELETE"], "it was not even asked"
        await ask(sandbox, "DELETE", f"/pods/{pod_id}")
        sandbox.clock.advance(minutes=1)
        assert await agent.call("delete_volume", volume="data") == {"volume_id": volume_id, "name": "data"}
    assert ids(sandbox) == set()


def by_its_id_alone(pod: Row) -> Row:
    return pod | {"volume": pod["volume"]["id"]}


def beside_it(pod: Row) -> Row:
    return pod | {"volume": None, "volume_id": pod["volume"]["id"]}


def in_upper_case(pod: Row) -> Row:
    return pod | {"volume": pod["volume"] | {"id": pod["volume"]["id"].upper()}}


@pytest.mark.parametrize("spelt", [by_its_id_alone, beside_it, in_upper_case])
async def test_a_volume_is_mounted_in_whichever_field_a_pod_names_it(
    sandbox: Sandbox, spelt: Callable[[Row], Row]
) -> None:
    volume_id = await made(sandbox, "data")
    pod_id = await rent(sandbox, "worker", volume_id=volume_id)
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [spelt(pod) for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: spelt(pod) if "pod_name" in pod else pod))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.call("list_volumes"))["volumes"][0]["attached_to"] == f"worker ({pod_id})"
        assert (await agent.refused("delete_volume", volume="data")).code == "volume_in_use"
        refused = await agent.refused("rent_pod", name="second", gpu_type="RTX4090", volume="data")
        assert refused.code == "volume_in_use"
        again = await agent.call("reboot_pod", pod="worker", volume="data", wait_seconds=60)
    assert (again["pod"]["volume_id"].lower(), again["pod"].get("warnings")) == (volume_id, None)
    assert ids(sandbox) == {volume_id}


ODD: dict[str, Row] = {
    "no id": {"volume": {"name": "data"}},
    "a list": {"volume": ["data"]},
    "an empty object": {"volume": {}},
    "an empty list": {"volume": []},
    "an empty text": {"volume": ""},
    "no text of an id": {"volume": "???"},
    "an id that is none": {"volume": {"id": "data"}},
    "an odd id beside it": {"volume": None, "volume_id": {"id": "data"}},
    "a number": {"volume": None, "volume_id": 0},
    "no pod": {"id": None},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_a_volume_that_may_be_mounted_is_not_deleted(sandbox: Sandbox, odd: Row) -> None:
    volume_id = await made(sandbox, "data")
    await rent(sandbox, "worker", volume_id=volume_id)
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/pods", editing(lambda pods: [pod | odd for pod in pods]))
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        refused = await agent.refused("delete_volume", volume="data")
    assert refused.code == "volume_use_unknown"
    assert "Nothing was changed" in refused.text
    assert person.questions == []
    assert not wire.sent("DELETE", "/volumes/*")


async def test_where_no_pod_says_anything_of_a_volume_none_is_deleted(sandbox: Sandbox) -> None:
    volume_id = await made(sandbox, "data")
    await rent(sandbox, "worker")
    silent = editing(lambda pods: [{name: pod[name] for name in pod if name != "volume"} for pod in pods])
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/pods", silent)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        refused = await agent.refused("delete_volume", volume="data")
        assert refused.code == "volume_use_unknown"
        assert "Lium says of no pod whether it has a volume" in refused.text
        assert person.questions == []
        assert ids(sandbox) == {volume_id}
        other = await made(sandbox, "other")
        await rent(sandbox, "second", volume_id=other)
        # A server that leaves out what is empty says of the other pod that it has none.
        wire.on("GET", "/pods", editing(lambda pods: [{name: pod[name] for name in pod if pod[name]} for pod in pods]))
        await agent.call("delete_volume", volume="data")
    assert ids(sandbox) == {other}


async def test_a_volume_that_is_mounted_meanwhile_is_kept_by_lium(sandbox: Sandbox) -> None:
    volume_id = await made(sandbox, "data")
    pod_id = await rent(sandbox, "worker", volume_id=volume_id)
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda rows: []))  # as a key sees it that sees its own pods only
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("delete_volume", volume="data")
    assert refused.code == "conflict"
    assert pod_id in refused.text
    assert ids(sandbox) == {volume_id}


async def test_a_volume_that_goes_meanwhile_is_not_found(sandbox: Sandbox) -> None:
    volume_id = await made(sandbox, "data")
    wire = Wire(sandbox)

    async def gone(request: Any, forward: Any) -> Any:
        await ask(sandbox, "DELETE", f"/volumes/{volume_id}")
        return await forward(request)

    wire.on("DELETE", "/volumes/*", gone)
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("delete_volume", volume=volume_id)).code == "not_found"


async def test_an_ambiguous_name_lists_the_ids_and_deletes_nothing(agent: Agent, sandbox: Sandbox) -> None:
    twins = {await made(sandbox, "twin"), await made(sandbox, "twin")}
    for tool, more in (("list_volumes", {}), ("delete_volume", {}), ("update_volume", {"name": "new"})):
        refused = await agent.refused(tool, volume="twin", **more)
        assert refused.code == "ambiguous_name"
        assert all(volume_id in refused.text for volume_id in twins)
    assert ids(sandbox) == twins
    one = twins.pop()
    await agent.call("delete_volume", volume=one)
    assert ids(sandbox) == twins


async def test_the_id_of_one_volume_that_another_is_named_is_ambiguous(agent: Agent, sandbox: Sandbox) -> None:
    one = await made(sandbox, "data")
    other = await made(sandbox, one)
    refused = await agent.refused("delete_volume", volume=one)
    assert refused.code == "ambiguous_name"
    assert f"{one} ({other})" in refused.text
    assert ids(sandbox) == {one, other}
    await agent.call("delete_volume", volume="data")
    assert ids(sandbox) == {other}


async def test_somebody_elses_volume_is_not_there(agent: Agent, sandbox: Sandbox) -> None:
    theirs = await made(sandbox, "theirs", **{"X-API-KEY": OTHER_API_KEY})
    assert (await agent.call("list_volumes"))["total"] == 0
    for named in (theirs, "theirs"):
        assert (await agent.refused("delete_volume", volume=named)).code == "volume_not_found"
    assert ids(sandbox) == {theirs}


async def test_a_name_is_given_once(agent: Agent, sandbox: Sandbox) -> None:
    taken = await made(sandbox, "data")
    refused = await agent.refused("create_volume", name="data")
    assert refused.code == "volume_name_taken"
    assert taken in refused.text
    await made(sandbox, "other")
    renamed = await agent.refused("update_volume", volume="other", name="data")
    assert renamed.code == "volume_name_taken"
    assert sorted(row["name"] for row in truth(sandbox, "volumes")) == ["data", "other"]


@pytest.mark.parametrize("name", ["a" * 101, "semi;colon", "ünïcode", "emoji🙂"])
async def test_a_name_that_lium_does_not_take_is_refused_before_it_is_sent(
    agent: Agent, sandbox: Sandbox, name: str
) -> None:
    refused = await agent.refused("create_volume", name=name)
    assert refused.code == "invalid_argument"
    assert "100 letters" in refused.text
    assert not [note for note in truth(sandbox, "requests") if note["method"] == "POST"]


async def test_an_update_changes_what_is_named(agent: Agent, sandbox: Sandbox) -> None:
    volume_id = await made(sandbox, "data")
    renamed = await agent.call("update_volume", volume="data", name="renamed")
    assert renamed["name"] == "renamed"
    described = await agent.call("update_volume", volume="renamed", description="why", name="renamed")
    assert (described["volume_id"], described["description"]) == (volume_id, "why")
    (row,) = truth(sandbox, "volumes")
    assert (row["name"], row["description"]) == ("renamed", "why")
    assert (await agent.refused("update_volume", volume="renamed")).code == "invalid_argument"


@pytest.mark.parametrize("said", [{"success": True}, None], ids=["bare success", "the old row"])
async def test_a_volume_that_stays_as_it_was_is_not_called_changed(sandbox: Sandbox, said: Row | None) -> None:
    row = await ask(sandbox, "POST", "/volumes", {"name": "data", "description": "old"})
    wire = Wire(sandbox)
    wire.on("PUT", "/volumes/*", answering(200, said or row))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("update_volume", volume="data", name="renamed", description="new")
    assert failure.code == "change_not_confirmed"
    assert f"{row['id']}, but shows another name and another description than asked" in failure.text
    assert "Nothing was changed" not in failure.text


async def test_pages_hold_every_volume_once(agent: Agent, sandbox: Sandbox) -> None:
    made_ids = [await made(sandbox, f"v{number}") for number in (3, 1, 2)]
    start = await agent.call("list_volumes", limit=2)
    rest = await agent.call("list_volumes", limit=2, cursor=start["next_cursor"])
    assert [row["name"] for row in start["volumes"] + rest["volumes"]] == ["v1", "v2", "v3"]
    assert start["total"] == rest["total"] == len(made_ids)
    assert "next_cursor" not in rest
    assert (await agent.refused("list_volumes", cursor="-1")).code == "invalid_argument"


async def test_a_lost_answer_to_a_creation_is_called_unknown_and_sent_once(agent: Agent, sandbox: Sandbox) -> None:
    sandbox.add_fault("lost_answer", match={"method": "POST", "path": "/volumes"})
    lost = await agent.refused("create_volume", name="data")
    assert lost.code == "outcome_unknown"
    assert [row["name"] for row in truth(sandbox, "volumes")] == ["data"]
    # Trying again is refused by the name, so that nobody gets two.
    assert (await agent.refused("create_volume", name="data")).code == "volume_name_taken"


async def test_a_list_with_holes_shows_what_can_be_read(sandbox: Sandbox) -> None:
    await made(sandbox, "data")
    wire = Wire(sandbox)
    wire.on(
        "GET", "/volumes", editing(lambda rows: [None, {"name": "no id"}, {"id": "odd", "current_size_gb": "x"}, *rows])
    )
    async with agent_on(sandbox, transport=wire) as agent:
        found = await agent.call("list_volumes")
    assert [row["name"] for row in found["volumes"]] == ["", "data"]


async def test_volumes_are_shown_though_the_pods_cannot_be_read(sandbox: Sandbox) -> None:
    await made(sandbox, "data")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(500, {"detail": "down"}))
    async with agent_on(sandbox, transport=wire) as agent:
        found = await agent.call("list_volumes")
        shown = await agent.call("list_volumes", volume="data")
    assert [row["name"] for row in found["volumes"] + shown["volumes"]] == ["data", "data"]
    unread = ["The pods could not be read: which pod has a volume is not known."]
    assert found["warnings"] == shown["warnings"] == unread


@pytest.mark.parametrize(("tool", "arguments"), [("list_volumes", {}), ("list_volumes", {"volume": "data"})])
async def test_a_key_that_is_refused_meanwhile_is_no_list_that_cannot_be_read(
    sandbox: Sandbox, tool: str, arguments: Row
) -> None:
    await made(sandbox, "data")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(401, {"detail": "Invalid API key"}))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused(tool, **arguments)).code == "api_key_refused"


async def test_a_volume_that_was_never_measured_has_no_size(sandbox: Sandbox) -> None:
    await made(sandbox, "data")
    never = {"current_size_gb": 0.0, "current_file_count": 0, "last_metrics_update": None}
    wire = Wire(sandbox)
    wire.on("GET", "/volumes", editing(lambda rows: [row | never for row in rows]))
    async with agent_on(sandbox, transport=wire) as agent:
        (row,) = (await agent.call("list_volumes"))["volumes"]
    assert {"size_gb", "files"}.isdisjoint(row)


@pytest.mark.parametrize(
    ("measured", "lost"),
    [
        ({"current_size_gb": 1.26, "current_file_count": 5}, "All data on it is lost: 1.3 GB in 5 files."),
        ({"current_size_gb": 1.26, "current_file_count": None}, "All data on it is lost: 1.3 GB."),
        ({"current_size_gb": None, "current_file_count": 5}, "All data on it is lost: 5 files."),
        ({"last_metrics_update": None}, "All data on it is lost; Lium has not measured it yet."),
    ],
    ids=str,
)
async def test_a_person_hears_how_much_goes_with_a_volume_as_far_as_it_was_measured(
    sandbox: Sandbox, measured: Row, lost: str
) -> None:
    await made(sandbox, "data")
    row = {"last_metrics_update": "2026-11-20T08:00:00", **measured}
    wire = Wire(sandbox)
    wire.on("GET", "/volumes", editing(lambda rows: [one | row for one in rows]))
    person = Person("no")
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        await agent.refused("delete_volume", volume="data")
    [question] = person.questions
    assert question.endswith(f"for good? {lost}")
