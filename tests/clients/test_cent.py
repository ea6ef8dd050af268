"""Centrifugo's server API through its official library, PyPI's `cent`, with official clients to see the effects."""

import base64
import hashlib
import hmac
import json
import time

import cent
import pytest

from centrifugo_drivers import CONNECTION, PythonCentrifuge, Refused
from conftest import eventually

KEY, SECRET = "the-applications-key", "the-applications-secret"


def jwt(claims: dict) -> str:
    """HS256, with the standard library alone."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = head + b"." + part(json.dumps(claims).encode())
    signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()


@pytest.fixture
def server(start, tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "secret").write_text(SECRET)
    return start(
        *("--workers", "3", "--presence"),
        *("--api-key-file", str(tmp_path / "key")),
        *("--token-secret-file", str(tmp_path / "secret")),
    )


@pytest.fixture
def api(server):
    return cent.Client(f"http://{server.address}/api", KEY)


@pytest.fixture(params=["json", "protobuf"])
def user(server, request):
    """`user(name)` connects a client of that user, in each format in turn."""
    clients: list[PythonCentrifuge] = []

    def user(name: str, **claims) -> PythonCentrifuge:
        client = PythonCentrifuge(server.address, request.param == "protobuf", jwt({"sub": name, **claims}))
        clients.append(client)
        client.event(CONNECTION, "connecting")
        client.id = client.event(CONNECTION, "connected")["client"]
        return client

    yield user
    for client in clients:
        client.end()


def data_of(client: PythonCentrifuge, event: dict):
    return json.loads(event["data"]) if client.protobuf else event["data"]


def is_undisturbed(client: PythonCentrifuge) -> None:
    """It is there, and no event has come that nobody has looked at."""
    with pytest.raises(Refused) as refused:
        client.rpc("nobody", b"{}" if client.protobuf else {})
    assert refused.value.code == 108
    assert all(events.empty() for events in client.events.values())


def test_a_publication_and_its_history(api, user):
    client = user("ann")
    client.subscribed("news")
    tags = {"lang": "en"}
    published = api.publish(cent.PublishRequest(channel="news", data={"n": 1}, tags=tags))
    assert (published.offset, len(published.epoch)) == (1, 8)
    assert data_of(client, client.event("news", "publication")) == {"n": 1}
    again = cent.PublishRequest(channel="news", data={"n": 2}, idempotency_key="once")
    assert api.publish(again) == api.publish(again)
    history = api.history(cent.HistoryRequest(channel="news", limit=10))
    assert [each.data for each in history.publications] == [{"n": 1}, {"n": 2}]
    assert (history.publications[0].tags, history.offset) == (tags, 2)
    assert history.epoch == published.epoch
    since = cent.StreamPosition(offset=1, epoch=history.epoch)
    newer = cent.HistoryRequest(channel="news", limit=10, since=since, reverse=False)
    assert [each.offset for each in api.history(newer).publications] == [2]
    api.history_remove(cent.HistoryRemoveRequest(channel="news"))
    assert api.history(cent.HistoryRequest(channel="news", limit=10)).publications == []


def test_a_broadcast_reaches_its_channels(api, user):
    client = user("ann")
    client.subscribed("a")
    client.subscribed("b")
    sent = api.broadcast(cent.BroadcastRequest(channels=["a", "no channel", "b"], data=[1]))
    assert [each.error and each.error.code for each in sent.responses] == [None, 107, None]
    assert sent.responses[2].result.offset == 1
    for channel in ("a", "b"):
        assert data_of(client, client.event(channel, "publication")) == [1]


def test_who_is_there_and_where(api, user):
    ann, bob = user("ann", info={"name": "Ann"}), user("bob")
    ann.subscribed("room:1")
    bob.subscribed("room:1")
    bob.subscribed("hall")
    present = api.presence(cent.PresenceRequest(channel="room:1")).presence
    assert {id: each.user for id, each in present.items()} == {ann.id: "ann", bob.id: "bob"}
    assert present[ann.id].conn_info == {"name": "Ann"}
    stats = api.presence_stats(cent.PresenceStatsRequest(channel="room:1"))
    assert (stats.num_clients, stats.num_users) == (2, 2)
    channels = api.channels(cent.ChannelsRequest(pattern="room:*")).channels
    assert {name: each.num_clients for name, each in channels.items()} == {"room:1": 2}
    assert set(api.channels(cent.ChannelsRequest()).channels) == {"room:1", "hall"}
    (node,) = api.info(cent.InfoRequest()).nodes
    assert (node.name, node.num_clients, node.num_channels) == ("throng", 2, 2)


def test_the_server_subscribes_and_unsubscribes_its_users(api, user):
    ann, twin, bob = user("ann"), user("ann"), user("bob")
    epoch = api.publish(cent.PublishRequest(channel="mine", data="before")).epoch
    api.subscribe(cent.SubscribeRequest(user="ann", channel="mine", data={"hello": "ann"}))
    for client in (ann, twin):
        subscribed = client.event("mine", "subscribed")
        assert data_of(client, subscribed) == {"hello": "ann"}
        assert subscribed["position"] == [epoch, 1]
        assert subscribed["recoverable"] and subscribed["positioned"]
    api.publish(cent.PublishRequest(channel="mine", data="both"))
    for client in (ann, twin):
        assert data_of(client, client.event("mine", "publication")) == "both"
    api.unsubscribe(cent.UnsubscribeRequest(user="ann", channel="mine", client=twin.id))
    twin.event("mine", "unsubscribed")
    api.publish(cent.PublishRequest(channel="mine", data="one"))
    assert data_of(ann, ann.event("mine", "publication")) == "one"
    is_undisturbed(twin)
    since = cent.StreamPosition(offset=1, epoch=epoch)
    api.subscribe(
        cent.SubscribeRequest(user="ann", channel="mine", client=twin.id, recover_since=since)
    )
    assert twin.event("mine", "subscribed")["position"] == [epoch, 1]
    missed = [data_of(twin, twin.event("mine", "publication")) for _ in range(2)]
    assert missed == ["both", "one"]
    override = cent.ChannelOptionsOverride(
        force_recovery=cent.BoolValue(value=False), force_positioning=cent.BoolValue(value=False)
    )
    api.subscribe(
        cent.SubscribeRequest(user="bob", channel="bare", info={"seat": 4}, override=override)
    )
    assert bob.event("bare", "subscribed")["position"] is None
    (member,) = api.presence(cent.PresenceRequest(channel="bare")).presence.values()
    assert (member.user, member.chan_info) == ("bob", {"seat": 4})
    # What the client subscribed to by itself ends too.
    bob.subscribed("own")
    api.unsubscribe(cent.UnsubscribeRequest(user="bob", channel="own"))
    ended = bob.event("own", "unsubscribed")
    assert (ended["code"], ended["reason"]) == (2000, "server unsubscribe")
    is_undisturbed(bob)


def test_the_server_disconnects_its_users(api, user):
    ann, twin, bob = user("ann"), user("ann"), user("bob")
    api.disconnect(cent.DisconnectRequest(user="ann", whitelist=[ann.id]))
    ended = twin.event(CONNECTION, "disconnected")
    assert (ended["code"], ended["reason"]) == (3503, "force disconnect")
    is_undisturbed(ann)
    banned = cent.Disconnect(code=4501, reason="banned")
    api.disconnect(cent.DisconnectRequest(user="ann", client=ann.id, disconnect=banned))
    ended = ann.event(CONNECTION, "disconnected")
    assert (ended["code"], ended["reason"]) == (4501, "banned")
    # Below 4500 clients come back.
    moved = cent.Disconnect(code=4001, reason="moved")
    api.disconnect(cent.DisconnectRequest(user="bob", disconnect=moved))
    assert bob.event(CONNECTION, "connecting")["code"] == 4001
    assert bob.event(CONNECTION, "connected")["client"] != bob.id


def test_the_server_says_until_when_users_may_stay(api, user):
    ann, bob = user("ann", exp=int(time.time()) + 3600), user("bob")
    api.refresh(cent.RefreshRequest(user="ann", expire_at=int(time.time()) + 7200))
    api.refresh(cent.RefreshRequest(user="ann"))
    is_undisturbed(ann)
    api.refresh(cent.RefreshRequest(user="ann", expired=True))
    assert ann.event(CONNECTION, "connecting")["code"] == 3005
    is_undisturbed(bob)


def test_a_batch_does_several_things(api, user):
    ann = user("ann")
    for parallel in (False, True):
        epoch = api.history(cent.HistoryRequest(channel="b")).epoch
        requests = [
            cent.PublishRequest(channel="b", data=1),
            cent.SubscribeRequest(user="ann", channel=f"batch:{parallel}"),
            cent.BroadcastRequest(channels=["x"], data=2),
            cent.RefreshRequest(user="ann"),
            cent.PresenceStatsRequest(channel="b"),
            cent.UnsubscribeRequest(user="ann", channel="never"),
            cent.DisconnectRequest(user="nobody"),
            cent.ChannelsRequest(),
            cent.InfoRequest(),
        ]
        replies = api.batch(cent.BatchRequest(requests=requests, parallel=parallel)).replies
        assert len(replies) == len(requests)
        assert replies[0].epoch == epoch
        assert ann.event(f"batch:{parallel}", "subscribed")["positioned"]
        assert replies[2].responses[0].result.epoch
        assert replies[8].nodes[0].num_clients == 1


def test_what_cannot_be_is_an_error(api):
    for request, code in [
        (cent.PublishRequest(channel="", data=1), 107),
        (cent.SubscribeRequest(user="", channel="a"), 107),
        (cent.SubscribeRequest(user="u", channel="no channel"), 107),
        (cent.UnsubscribeRequest(user="u", channel=""), 107),
        (cent.DisconnectRequest(user=""), 107),
        (cent.DisconnectRequest(user="u", disconnect=cent.Disconnect(code=1000)), 107),
        (cent.RefreshRequest(user=""), 107),
        (cent.HistoryRequest(channel="a", limit=1, since=cent.StreamPosition(offset=9)), 112),
    ]:
        with pytest.raises(cent.CentApiResponseError) as refused:
            getattr(api, request.__api_method__)(request)
        assert refused.value.code == code, request


def test_a_bad_key_and_unknown_methods_are_turned_away(server, api):
    stranger = cent.Client(f"http://{server.address}/api", "another-key")
    with pytest.raises(cent.CentUnauthorizedError):
        stranger.publish(cent.PublishRequest(channel="a", data=1))
    with pytest.raises(cent.CentTransportError) as refused:
        api.get_user_status(cent.GetUserStatusRequest(users=["u"]))
    assert refused.value.status_code == 404


def test_users_that_have_gone_leave_nothing_to_be_found(server, api, user):
    ann = user("ann")
    ann.disconnect()
    ann.event(CONNECTION, "disconnected")
    eventually("it is gone", lambda: server.metric("throng_connections") <= 1)
    api.disconnect(cent.DisconnectRequest(user="ann"))
    ann.reconnect()
    ann.event(CONNECTION, "connecting")
    ann.event(CONNECTION, "connected")
    api.subscribe(cent.SubscribeRequest(user="ann", channel="again"))
    ann.event("again", "subscribed")
