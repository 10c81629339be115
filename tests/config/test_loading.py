from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load
from config.origins import settable
from config.settings import Settings

SECRET = "correct-horse-battery-staple"


def test_defaults_need_no_source_at_all() -> None:
    loaded = load()
    assert loaded.settings.model_dump() == Settings().model_dump()
    assert {origin for _, _, origin in loaded.rows()} == {"default"}


def _toml(port: int) -> None:
    Path("monitord.toml").write_text(f"[gateway]\nport = {port}\n")


def _credential(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("credentials")
    folder.mkdir(exist_ok=True)
    (folder / "gateway__port").write_text(f"{port}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))


def _dotenv(port: int) -> None:
    Path(".env").write_text(f"OTHER_PROGRAM=1\nMONITORD_GATEWAY__PORT={port}\n")


def test_each_source_is_stronger_than_the_one_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[tuple[Callable[[], object], int, str]] = [
        (lambda: _toml(1001), 1001, "monitord.toml: gateway.port"),
        (lambda: _credential(1002, monkeypatch), 1002, "credentials in credentials: gateway__port"),
        (lambda: _dotenv(1003), 1003, ".env: MONITORD_GATEWAY__PORT"),
        (
            lambda: monkeypatch.setenv("MONITORD_GATEWAY__PORT", "1004"),
            1004,
            "environment: MONITORD_GATEWAY__PORT",
        ),
    ]
    for set_source, port, origin in layers:
        set_source()
        loaded = load()
        assert loaded.settings.gateway.port == port
        assert loaded.origins["gateway", "port"] == origin
    loaded = load(["gateway.port=1005"])
    assert loaded.settings.gateway.port == 1005
    assert loaded.origins["gateway", "port"] == "command line: --set gateway.port"


def test_sources_fill_one_section_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("monitord.toml").write_text('[feed.simulated]\nseed = 7\nstart = "10:00:00"\n')
    monkeypatch.setenv("MONITORD_FEED__SIMULATED__SEED", "8")
    simulated = load(["feed.simulated.days=2"]).settings.feed.simulated
    assert (simulated.seed, simulated.start, simulated.days) == (8, "10:00:00", 2)


def test_a_list_of_a_stronger_source_replaces_the_weaker_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("monitord.toml").write_text('[rules]\nfiles = ["a.yaml", "b.yaml"]\n')
    monkeypatch.setenv("MONITORD_RULES__FILES", "c.yaml")
    assert load().settings.rules.files == ("c.yaml",)


@pytest.mark.parametrize("text", ["a.yaml,b.yaml", "a.yaml, b.yaml", '["a.yaml", "b.yaml"]'])
def test_lists_are_read_from_text_as_words_or_as_json(text: str) -> None:
    assert load([f"rules.files={text}"]).settings.rules.files == ("a.yaml", "b.yaml")


def test_tokens_come_as_a_credential_in_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gateway__tokens").write_text(f'[{{"name": "desk", "token": "{SECRET}", "channels": ["alerts"]}}]\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (token,) = load(["gateway.host=0.0.0.0"]).settings.gateway.tokens
    assert token.token.get_secret_value() == SECRET
    assert token.channels == ("alerts",)


def test_credentials_of_a_whole_folder_have_the_name_systemd_puts_before_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LoadCredential=monitord:/etc/monitord/secrets."""
    (tmp_path / "monitord_gateway__port").write_text("1003\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load([]).settings.gateway.port == 1003
    (tmp_path / "monitord_gateway__prot").write_text("1003\n")
    with pytest.raises(ConfigError, match="monitord_gateway__prot"):
        load([])


def test_the_last_set_of_one_setting_wins() -> None:
    assert load(["gateway.port=1", "gateway.port=2"]).settings.gateway.port == 2


def complaints(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    return str(caught.value)


def test_an_unknown_variable_is_an_error_with_the_likely_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITORD_GATEWAY__PROT", "1")
    text = complaints()
    assert "MONITORD_GATEWAY__PROT (from environment): there is no such setting" in text
    assert "did you mean MONITORD_GATEWAY__PORT?" in text


def test_an_unknown_name_in_dotenv_is_an_error_but_other_programs_names_are_not() -> None:
    Path(".env").write_text("DATABASE_URL=x\nMONITORD_LOGS__LEVEL=debug\n")
    text = complaints()
    assert "MONITORD_LOGS__LEVEL (from .env)" in text
    assert "did you mean MONITORD_LOG__LEVEL?" in text
    assert "DATABASE_URL" not in text


def test_an_unknown_credential_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broker__pasword").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = complaints()
    assert "broker__pasword" in text
    assert "did you mean broker__password?" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("toml", "setting", "meant"),
    [
        ("gatway = {port = 1}", "gatway", "gateway"),
        ("[gateway]\nprot = 1", "gateway.prot", "port"),
        ("[feed.simulated]\nsymbol = 3", "feed.simulated.symbol", "symbols"),
        (
            '[[notify.webhooks]]\nname = "x"\nurl = "https://x.cn"\nevent = ["fire"]',
            "notify.webhooks[0].event",
            "events",
        ),
    ],
)
def test_an_unknown_key_at_any_depth_of_the_file_is_an_error(toml: str, setting: str, meant: str) -> None:
    Path("monitord.toml").write_text(toml)
    text = complaints()
    assert f"{setting} (from monitord.toml" in text
    assert "there is no such setting" in text
    assert f"did you mean {meant}?" in text


def test_set_of_an_unknown_key_says_what_was_meant() -> None:
    assert "did you mean gateway.port?" in complaints("gateway.prot=1")


def test_set_without_a_value_says_how_to_write_it() -> None:
    assert "--set section.key=value" in complaints("gateway.port")


def test_a_section_is_no_value() -> None:
    text = complaints("log=debug")
    assert "is a section" in text
    assert "log.level" in text


def test_a_wrong_value_names_setting_origin_value_and_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITORD_GATEWAY__PORT", "http")
    text = complaints()
    assert text.startswith("gateway.port (from environment: MONITORD_GATEWAY__PORT): 'http': ")
    assert "integer" in text


def test_everything_wrong_in_the_values_is_said_at_once() -> None:
    text = complaints("gateway.port=70000", "engine.window=0", "log.level=loud")
    assert all(setting in text for setting in ("gateway.port", "engine.window", "log.level"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_listening_for_other_machines_needs_a_token(host: str) -> None:
    text = complaints(f"gateway.host={host}")
    assert "gateway.host (from command line: --set gateway.host)" in text
    assert "there is no token" in text
    assert "[[gateway.tokens]]" in text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert load([f"gateway.host={host}"]).settings.gateway.host == host


@pytest.mark.parametrize(
    "override",
    [
        f'gateway.tokens=[{{"name": "desk", "tokn": "{SECRET}"}}]',
        f'gateway.tokens=[{{"name": "desk", "token": "{SECRET}"',
        f'gateway.tokens=[{{"name": "desk", "token": ["{SECRET}"]}}]',
        f"gateway.tokens={SECRET}",
        f"broker.url=http://{SECRET}",
        f'notify.webhooks=[{{"name": "x", "url": "ftp://{SECRET}"}}]',
        f'notify.webhooks=[{{"name": "x", "url": "https://x.cn", "secrets": "[{SECRET}"}}]',
        f'notify.webhooks=[{{"name": "x", "urll": "{SECRET}"}}]',
    ],
)
def test_no_error_ever_tells_a_secret(override: str) -> None:
    assert SECRET not in complaints(override)


def test_config_rows_mask_every_secret() -> None:
    loaded = load(
        [
            f"broker.url=redis://:{SECRET}@h:6379/0",
            f"broker.password={SECRET}",
            f'gateway.tokens=[{{"name": "desk", "token": "{SECRET}"}}]',
            f'notify.webhooks=[{{"name": "ops", "url": "https://x.cn/{SECRET}", "secrets": ["{SECRET}"]}}]',
        ]
    )
    text = "\n".join(" ".join(row) for row in loaded.rows())
    assert SECRET not in text
    assert "name: desk, token: **********" in text
    assert loaded.settings.secrets() == {SECRET, f"redis://:{SECRET}@h:6379/0", f"https://x.cn/{SECRET}"}


def test_rows_hold_every_setting_there_is_once() -> None:
    names = [setting for setting, _, _ in load().rows()]
    assert names == [".".join(path) for path in settable(Settings)]
    assert len(names) == len(set(names))


def test_the_file_of_the_command_line_comes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("one.toml").write_text("engine.window = 11\n")
    Path("two.toml").write_text("engine.window = 22\n")
    monkeypatch.setenv("MONITORD_CONFIG", "two.toml")
    assert load().settings.engine.window == 22
    assert load(config=Path("one.toml")).settings.engine.window == 11


def test_a_file_that_was_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"command line: --config.*no file gone\.toml"):
        load(config=Path("gone.toml"))
    monkeypatch.setenv("MONITORD_CONFIG", "lost.toml")
    with pytest.raises(ConfigError, match=r"MONITORD_CONFIG.*no file lost\.toml"):
        load()


def test_broken_toml_names_file_and_place() -> None:
    Path("monitord.toml").write_text("[gateway\nport = 1\n")
    assert "monitord.toml" in complaints()
    assert "line 1" in complaints()


def test_a_value_where_a_section_belongs_is_an_error_even_with_a_stronger_source() -> None:
    Path("monitord.toml").write_text("gateway = 5\n")
    for overrides in ((), ("gateway.port=1",)):
        text = complaints(*overrides)
        assert "gateway (from monitord.toml): is a section, not a value" in text
        assert "gateway.host" in text


def test_an_unknown_section_is_an_error_even_when_it_is_empty() -> None:
    Path("monitord.toml").write_text("[gatway]\n")
    assert "gatway (from monitord.toml: gatway): there is no such setting" in complaints()


def test_an_empty_section_sets_nothing() -> None:
    Path("monitord.toml").write_text("[gateway]\n")
    assert {origin for _, _, origin in load().rows()} == {"default"}


def test_an_address_with_a_password_in_it_is_refused_without_being_repeated(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[[notify.bark]]\nname = 'b'\nkey = 'k'\nserver = 'https://u:PLANTED@bark.example'\n")
    with pytest.raises(ConfigError) as raised:
        load(config=file)
    assert "notify.bark[0].server" in str(raised.value)
    assert "PLANTED" not in str(raised.value)
