from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.origins import leaves, settable
from config.receivers import Webhook
from config.settings import Settings
from config.values import TOLD

DEFAULT_TOML = Path(__file__).parents[2] / "config" / "default.toml"
UNSET = {
    ("adviser", "key"),
    *(("feed", "xt", name) for name in ("port", "token", "data_home")),
    ("state_dir",), ("record", "folder"), ("feed", "redis", "url"), ("bridge", "url"),
    ("broker", "url"), ("broker", "socket"), ("broker", "password"),
    ("broker", "bridge_password"),
}  # fmt: skip
"""Settings without a fixed default: the file shows an example."""


def _uncommented() -> dict[str, object]:
    """Read default.toml with every `# key = value` made real; the tables of lists are examples and stay out."""
    text = DEFAULT_TOML.read_text(encoding="utf-8")
    text = re.sub(r"^# \[\[.*?(?=^\[|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))


def test_default_toml_holds_every_setting_with_its_default() -> None:
    written = _uncommented()
    assert {path for path, _ in leaves(written)} == set(settable(Settings))
    defaults = Settings()
    settings = Settings(**written)  # type: ignore[arg-type]
    for path in set(settable(Settings)) - UNSET:
        values = []
        for root in (settings, defaults):
            value: object = root
            for key in path:
                value = getattr(value, key)
            values.append(value)
        assert values[0] == values[1], ".".join(path)


def test_default_toml_as_shipped_changes_nothing() -> None:
    assert list(tomllib.loads(DEFAULT_TOML.read_text(encoding="utf-8"))["gateway"]) == []


def test_the_examples_of_default_toml_are_good() -> None:
    text = DEFAULT_TOML.read_text(encoding="utf-8")
    blocks = re.findall(r"^# \[\[.*?(?=\n\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    written = tomllib.loads("\n".join(re.sub(r"^# ", "", block, flags=re.MULTILINE) for block in blocks))
    settings = Settings(**written)
    assert settings.gateway.tokens[0].name == "desk"
    assert settings.notify.webhooks[0].events == TOLD


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().gateway.port = 1  # type: ignore[misc]


def test_state_is_kept_where_systemd_says_else_in_the_persons_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Settings().state_dir == Path("/home/me/.local/state/monitord")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert Settings().state_dir == Path("/elsewhere/monitord")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/monitord:/var/lib/second")
    assert Settings().state_dir == Path("/var/lib/monitord")


def test_an_empty_choice_of_symbols_reaches_the_feed_as_none() -> None:
    replay = Settings(feed={"name": "replay", "replay": {"inputs": ["a.parquet"]}})  # type: ignore[arg-type]
    assert replay.feed.arguments() == {"inputs": ("a.parquet",), "speed": 1.0, "symbols": None}


def test_replay_without_an_input_is_refused() -> None:
    with pytest.raises(ValidationError, match="is empty"):
        Settings(feed={"name": "replay"})  # type: ignore[arg-type]


@pytest.mark.parametrize("symbol", ["600519", "600519.XX", "SH600519", ""])
def test_a_symbol_needs_six_digits_and_its_exchange(symbol: str) -> None:
    with pytest.raises(ValidationError):
        Settings(feed={"xt": {"symbols": [symbol]}})  # type: ignore[arg-type]


def test_a_bare_code_is_told_its_possible_exchanges() -> None:
    with pytest.raises(ValidationError, match=r"600519\.SH"):
        Settings(feed={"xt": {"symbols": ["600519"]}})  # type: ignore[arg-type]


def test_two_tokens_or_webhooks_of_one_name_are_refused() -> None:
    token = {"name": "desk", "token": "t"}
    with pytest.raises(ValidationError, match="two tokens are named 'desk'"):
        Settings(gateway={"tokens": [token, token]})  # type: ignore[arg-type]
    webhook = {"name": "ops", "url": "https://x.cn"}
    with pytest.raises(ValidationError, match="two webhooks are named 'ops'"):
        Settings(notify={"webhooks": [webhook, webhook]})  # type: ignore[arg-type]


def test_a_webhooks_networks_must_be_networks() -> None:
    good = Webhook(name="x", url="https://x.cn", allow_networks=["10.1.2.3/8"])  # type: ignore[arg-type]
    assert good.allow_networks == ("10.0.0.0/8",)
    with pytest.raises(ValidationError, match="is no network"):
        Webhook(name="x", url="https://x.cn", allow_networks=["intranet"])  # type: ignore[arg-type]


def test_rule_files_come_in_order_of_the_patterns_each_once(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "sub/c.yaml", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    rules = Settings(
        rules={"files": [str(tmp_path / "b.yaml"), str(tmp_path / "*.yaml"), str(tmp_path / "**/c.yaml")]}  # type: ignore[arg-type]
    ).rules
    assert [path.name for path in rules.paths()] == ["b.yaml", "a.yaml", "c.yaml"]
    assert list(rules.texts().values()) == ["b.yaml", "a.yaml", "sub/c.yaml"]


def test_a_pattern_without_a_file_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"'my/*.yaml' (seen from {tmp_path})")):
        Settings(rules={"files": ["my/*.yaml"]}).rules.paths()  # type: ignore[arg-type]


@pytest.mark.parametrize("share", ["2/2", "1", "a/b", "0/0", "-1/2"])
def test_a_share_is_a_part_of_a_whole(share: str) -> None:
    with pytest.raises(ValidationError, match="write 0/2 and 1/2"):
        Settings(engine={"share": share})  # type: ignore[arg-type]
    assert Settings(engine={"share": "1/2"}).engine.share == "1/2"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a b", "mon:ticks", "", "x" * 65])
def test_a_streams_name_is_one_that_a_key_can_have(name: str) -> None:
    with pytest.raises(ValidationError, match="is no name"):
        Settings(bridge={"stream": name})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="is no name"):
        Settings(feed={"redis": {"stream": name}})  # type: ignore[arg-type]


@pytest.mark.parametrize("section", [{"feed": {"redis": {"url": "x"}}}, {"bridge": {"url": "x"}}])
def test_an_address_of_redis_names_its_scheme(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="redis://, rediss:// or unix://"):
        Settings(**section)  # type: ignore[arg-type]


def test_the_secrets_of_a_bridge_are_blotted_out_of_logs() -> None:
    url = "redis://bridge:pw@host/0"
    settings = Settings(
        bridge={"url": url}, feed={"redis": {"url": url + "1"}}, broker={"bridge_password": "pass-word"}
    )  # type: ignore[arg-type]
    assert {url, url + "1", "pass-word"} <= settings.secrets()


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.yaml").write_text("version: 1")
    with pytest.raises(OSError, match=r"a\\udcff\.yaml' is no UTF-8 text; rename it"):
        Settings(rules={"files": [str(tmp_path / "*.yaml")]}).rules.texts()  # type: ignore[arg-type]
