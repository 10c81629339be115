"""Email against a mail server that asks for TLS and passwords, greylists, and refuses some of the recipients."""

from __future__ import annotations

import ssl
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import AuthResult, LoginPassword

from notifiers.email import EmailNotifier, EmailOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Notification, Outcome, Verdict
from tests.notifiers.receiving import Mailbox, mail_server

NOW_MS = 1_675_216_925_000
PASSWORD = "pl4nted-password"


class Certificates:
    """A CA of the test's own and a certificate for localhost."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.server)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


def let_in(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
    good = isinstance(given, LoginPassword) and given.password == PASSWORD.encode()
    return AuthResult(success=good, handled=good)


def mailer(port: int, **options: Any) -> EmailNotifier:
    fields: dict[str, Any] = {
        "name": "mail", "host": "localhost", "port": port, "security": "none", "sender": "monitord <m@example.com>",
        "to": ("a@example.com", "乙 <b@example.com>"), "allow_networks": ("127.0.0.0/8", "::1/128"),
        "connect_timeout_s": 2, "total_timeout_s": 5,
    }  # fmt: skip
    return EmailNotifier(EmailOptions(**{**fields, **options}))


def note(alert: Any, **changes: Any) -> Notification:
    built = alert(**changes)
    return Notification(alert=built, record=built.to_json(), now_ms=NOW_MS)


async def test_a_mail_says_who_what_when_and_never_twice_the_same_without_its_id(alert: Any) -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as port:
        outcome = await mailer(port).send(note(alert, name="茅\r\nBcc: x@evil.com"))
    assert outcome == Outcome(verdict=Verdict.OK, code=250)
    recipients, content = mailbox.mails[0]
    mail = message_from_bytes(content, policy=policy.default)
    assert recipients == ["a@example.com", "b@example.com"]
    assert mail["Subject"] == "触发 brk 600519.SH 茅 Bcc: x@evil.com"
    assert mail["Bcc"] is None
    assert mail["Message-ID"] == "<al_1@example.com>"
    assert mail["Date"].datetime.timestamp() == NOW_MS // 1000
    assert mail["To"] == "a@example.com, 乙 <b@example.com>"
    assert "突破" in mail.get_content()


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_password_is_given_over_tls_with_a_trusted_certificate(
    security: str, certificates: Certificates, alert: Any
) -> None:
    mailbox = Mailbox()
    options: dict[str, Any] = {"authenticator": let_in, "auth_required": True}
    if security == "tls":
        options |= {"ssl": certificates.server, "auth_require_tls": False}
    else:
        options |= {"tls_context": certificates.server, "require_starttls": True}
    async with mail_server(mailbox, **options) as port:
        login = {"security": security, "username": "m", "ca_file": certificates.ca_file}
        assert (await mailer(port, password=PASSWORD, **login).send(note(alert))).verdict is Verdict.OK
        wrong = await mailer(port, password="pl4nted-wrong", **login).send(note(alert))
        assert (wrong.verdict, wrong.code) == (Verdict.PERMANENT, 535)
        assert "password" in wrong.text
        stranger = await mailer(port, password=PASSWORD, **{**login, "ca_file": ""}).send(note(alert))
        assert stranger.verdict is Verdict.PERMANENT
        assert "ca_file" in stranger.text
        assert "pl4nted" not in f"{wrong} {stranger}"
    assert len(mailbox.mails) == 1


async def test_starttls_that_is_not_offered_sends_nothing_in_the_clear(alert: Any) -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as port:
        outcome = await mailer(port, security="starttls").send(note(alert))
    assert outcome.verdict is Verdict.PERMANENT
    assert mailbox.mails == []


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("451 greylisted, come back", Verdict.RETRY), ("421 too busy", Verdict.RETRY), ("552 too big", Verdict.PERMANENT),
     ("554 looks like spam", Verdict.PERMANENT)],
)  # fmt: skip
async def test_the_servers_code_decides(answer: str, verdict: Verdict, alert: Any) -> None:
    mailbox = Mailbox()
    mailbox.answer = answer
    async with mail_server(mailbox) as port:
        outcome = await mailer(port).send(note(alert))
    assert (outcome.verdict, outcome.code) == (verdict, int(answer[:3]))
    assert answer[4:] in outcome.text


async def test_who_has_the_mail_does_not_get_it_again_when_another_is_tried_again(alert: Any) -> None:
    mailbox = Mailbox()
    mailbox.refusals["b@example.com"] = "450 mailbox busy"
    async with mail_server(mailbox) as port:
        notifier = mailer(port)
        first = await notifier.send(note(alert))
        assert (first.verdict, first.code) == (Verdict.RETRY, 450)
        assert "1 of 2 recipients" in first.text
        mailbox.refusals.clear()
        assert (await notifier.send(note(alert))).verdict is Verdict.OK
    assert [recipients for recipients, _ in mailbox.mails] == [["a@example.com"], ["b@example.com"]]


async def test_a_mailbox_that_is_gone_is_said_and_no_failure_unless_all_are(alert: Any) -> None:
    mailbox = Mailbox()
    mailbox.refusals["b@example.com"] = "550 no such user"
    async with mail_server(mailbox) as port:
        some = await mailer(port).send(note(alert))
        mailbox.refusals["a@example.com"] = "550 no such user"
        none = await mailer(port).send(note(alert))
    assert (some.verdict, none.verdict) == (Verdict.OK, Verdict.PERMANENT)
    assert "1 of 2 recipients refused" in some.text
    assert "2 of 2" in none.text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"to": ()}, "to are needed"),
        ({"to": ("nobody",)}, "no mail address"),
        ({"sender": "a@b\r\nBcc: c@d"}, "no mail address"),
        ({"security": "ssl"}, "tls, starttls or none"),
        ({"username": "m", "password": "p"}, "over TLS only"),
        ({"ca_file": "/no/such.pem", "security": "tls"}, "ca_file"),
        ({"port": 70_000}, "port"),
    ],
)
def test_a_section_that_cannot_work_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DeliveryError, match=complaint):
        mailer(**{"port": 1, **options})
