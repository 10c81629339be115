"""The daemon keeps to the processors it is given, and its broker to the others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from config.settings import EngineSection, Settings
from monitord.broker import EmbeddedBroker
from monitord.building import build_broker
from monitord.cpus import aside, kept_to, others
from monitord.errors import StartError

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")


def test_threads_started_meanwhile_keep_to_them_and_the_rest_is_as_before() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    seen: list[set[int]] = []
    with kept_to(str(one)):
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert (seen, os.sched_getaffinity(0)) == ([{one}], before)


def test_what_a_loop_lets_others_do_may_use_all_of_them() -> None:
    before = os.sched_getaffinity(0)
    with kept_to(str(min(before))), aside() as pool:
        assert pool.submit(os.sched_getaffinity, 0).result() == before
    with aside() as pool:
        assert pool.submit(os.sched_getaffinity, 0).result() == before


def test_a_thread_that_may_not_move_works_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, processors: set[int]) -> None:
        raise OSError("not here")

    with kept_to(str(min(os.sched_getaffinity(0)))), monkeypatch.context() as patched, aside() as pool:
        patched.setattr(os, "sched_setaffinity", refuse)
        assert pool.submit(int).result() == 0


def test_the_outermost_choice_says_where_one_may_roam() -> None:
    before = os.sched_getaffinity(0)
    one = str(min(before))
    with kept_to(one):
        with kept_to(one):
            pass
        with aside() as pool:
            assert pool.submit(os.sched_getaffinity, 0).result() == before


def test_without_a_choice_nothing_changes() -> None:
    before = os.sched_getaffinity(0)
    with kept_to(""):
        assert os.sched_getaffinity(0) == before
    assert others("") == ""


def test_a_processor_that_is_not_there_is_told_with_those_that_are() -> None:
    with (
        pytest.raises(StartError, match=r"engine\.cpus is '0-9999', and the processors this process may use are \d"),
        kept_to("0-9999"),
    ):
        pass


@pytest.mark.parametrize("text", ["x", "1-", "3-1", "0,,1", "-1", "0;1"])
def test_what_is_no_list_of_processors_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no list of processors: write 0, or 0,2-3"):
        EngineSection(cpus=text)


async def test_a_broker_of_our_own_gets_the_other_processors(tmp_path: Path) -> None:
    available = os.sched_getaffinity(0)
    if len(available) < 2:
        pytest.skip("needs two processors")
    one = min(available)
    settings = Settings(state_dir=tmp_path, engine=EngineSection(cpus=str(one)))
    broker = build_broker(settings)
    assert isinstance(broker, EmbeddedBroker)
    with kept_to(str(one)):
        await broker.start()
    try:
        assert broker.pid is not None
        assert os.sched_getaffinity(broker.pid) == available - {one}
    finally:
        await broker.stop()
