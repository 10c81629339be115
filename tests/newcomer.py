"""A newcomer's path with a clock beside it: `python -m tests.newcomer`, as the README has it, in a fresh clone.

Install, run, first own rule, first DingTalk message (at a stand-in of the robot on this machine). Prints what each step
took on the clock, and of the processor, as it ends; at the end the sections of README.md and README.zh-CN.md. With
--write those take the place of the ones that are there. Exit code 1 if a step did not come.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from tests.notifiers.vendors import DingTalkBot

ROOT: Final = Path(__file__).parent.parent
LONGEST_S: Final = 600.0
SECRET: Final = "SEC-newcomer"
WRITE: Final = "--write"


@dataclass(frozen=True, slots=True)
class Told:
    """How a README words its section of times."""

    heading: str
    intro: str
    columns: str
    together: str


READMES: Final = {
    "README.md": Told(
        "## How long it takes",
        "The path of a newcomer, as `python -m tests.newcomer --write` walks it in a fresh clone and writes it down "
        "here: seconds on the clock,\non a machine of {processors} processors (load at the beginning {load:.1f}).",
        "| step | s |",
        "together",
    ),
    "README.zh-CN.md": Told(
        "## 要多久",
        "新手之路，由 `python -m tests.newcomer --write` 在全新克隆里走一遍并写到这里：墙上时间的秒数，"
        "机器有 {processors} 个处理器（开始时负载 {load:.1f}）。",
        "| 步骤 | 秒 |",
        "合计",
    ),
}
"""File → its words."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what README.md and README.zh-CN.md call it, and what it took."""

    en: str
    zh: str
    walk: Callable[[], None]


def main(words: Sequence[str]) -> int:
    if set(words) - {WRITE}:
        raise SystemExit(f"{__doc__}\nusage: python -m tests.newcomer [{WRITE}]")
    took: list[tuple[Step, float]] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder, robot() as (bot, url):
        clone = Path(folder) / "monitord"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        for step in _steps(clone, bot, url):
            started, cpu_s = time.monotonic(), _cpu_s()
            step.walk()
            took.append((step, time.monotonic() - started))
            print(f"{took[-1][1]:7.1f} s  {_cpu_s() - cpu_s:7.1f} s of processor  {step.en}", flush=True)
        print(bot.texts[-1])
    for name, told in READMES.items():
        lines = section(told, [(step.zh if "zh" in name else step.en, wall_s) for step, wall_s in took], load=load)
        print(f"\n{name}:\n{lines}")
        if WRITE in words:
            path = ROOT / name
            path.write_text(with_section(path.read_text("utf-8"), lines, heading=told.heading), encoding="utf-8")
    return 0


def section(told: Told, rows: Sequence[tuple[str, float]], *, load: float) -> str:
    """Return a README's section of times in whole seconds, with their sum. load: of the machine at the beginning."""
    rows = [*rows, (told.together, sum(wall_s for _, wall_s in rows))]
    lines = [told.columns, "|---|---|", *(f"| {name} | {wall_s:.0f} |" for name, wall_s in rows)]
    intro = told.intro.format(processors=os.cpu_count(), load=load)
    return "\n".join([told.heading, "", intro, "", *lines]) + "\n"


def with_section(text: str, lines: str, *, heading: str) -> str:
    """Return a README whose section of this heading is this one; ValueError where it has none."""
    begin = text.index(f"{heading}\n")
    return text[:begin] + lines + "\n" + text[text.index("## ", begin + len(heading)) :]


def _steps(clone: Path, bot: DingTalkBot, url: str) -> list[Step]:
    return [
        Step(
            "install: `make run` sets itself up, what is in C compiled",
            "安装：`make run` 自己准备环境，编译 C 代码",
            lambda: _run(clone, "make", "--quiet", ".venv/run.stamp"),
        ),
        Step("first alert after `make run`", "`make run` 之后的第一条提醒", lambda: _first_alert(clone)),
        Step(
            "the rule above: written, checked, its first alert", "上面的规则：写好、检查、第一条提醒",
            lambda: _own_rule(clone),
        ),
        Step(
            "a DingTalk robot in `monitord.toml`, `monitord notify test desk`",
            "在 `monitord.toml` 里加钉钉机器人，`monitord notify test desk`",
            lambda: _test_message(clone, url, bot),
        ),
        Step(
            "first alert in DingTalk (a stand-in of the robot) after `make run`",
            "`make run` 之后钉钉（机器人替身）里的第一条提醒",
            lambda: _first_message(clone, bot),
        ),
    ]  # fmt: skip


def _cpu_s() -> float:
    """Return the processor time of every process that was started here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(clone: Path, *words: str) -> None:
    done = subprocess.run(words, cwd=clone, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")


def _environment() -> dict[str, str]:
    """Return ours without an environment of Python's that is active here, and without settings of monitord."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MONITORD_", "VIRTUAL_ENV"))}
    return kept | {"PATH": os.pathsep.join(one for one in kept["PATH"].split(os.pathsep) if ".venv" not in one)}


@contextmanager
def _daemon(clone: Path, args: str = "") -> Iterator[Callable[[str], None]]:
    """Run `make run`; yield what waits for a line that matches."""
    process = subprocess.Popen(
        ["make", "run", f"ARGS=--port 0 {args}"], cwd=clone, env=_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    lines: list[str] = []
    came = threading.Condition()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with came:
                lines.append(line)
                came.notify_all()

    threading.Thread(target=read, daemon=True).start()

    def wait_for(pattern: str) -> None:
        with came:
            if not came.wait_for(lambda: any(re.search(pattern, line) for line in lines), LONGEST_S):
                raise SystemExit(f"no line came that matches {pattern}:\n{''.join(lines[-20:])}")

    try:
        yield wait_for
    finally:
        process.terminate()  # make has become the daemon (exec)
        process.wait(60)


def _first_alert(clone: Path) -> None:
    with _daemon(clone) as wait_for:
        wait_for('"event":"alert_fired"')


def _own_rule(clone: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^```yaml\n# mine.yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (clone / "mine.yaml").write_text(rule, encoding="utf-8")
    _run(clone, ".venv/bin/monitord", "check", "mine.yaml")
    with _daemon(clone, "--rules mine.yaml") as wait_for:
        wait_for('"event":"alert_fired".*"rule":"strong"')


def _test_message(clone: Path, url: str, bot: DingTalkBot) -> None:
    receiver = {"name": "desk", "url": url, "secret": SECRET, "allow_networks": ["127.0.0.0/8"]}
    fields = "\n".join(f"{name} = {json.dumps(value)}" for name, value in receiver.items())
    (clone / "monitord.toml").write_text(f"[[notify.dingtalk]]\n{fields}\n", encoding="utf-8")
    _run(clone, ".venv/bin/monitord", "notify", "test", "desk")
    assert len(bot.texts) == 1


def _first_message(clone: Path, bot: DingTalkBot) -> None:
    with _daemon(clone):
        for _ in range(round(LONGEST_S / 0.05)):
            if len(bot.texts) > 1:
                return
            time.sleep(0.05)
    raise SystemExit("the robot heard nothing")


@contextmanager
def robot() -> Iterator[tuple[DingTalkBot, str]]:
    """Serve a DingTalk robot that checks signature, keyword and rate as the vendor's does."""
    bot = DingTalkBot(now_ms=lambda: time.time_ns() // 1_000_000, secret=SECRET)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = bot.answer(path, query, body)
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield bot, f"http://127.0.0.1:{server.server_address[1]}/robot/send?access_token={bot.token}"
    finally:
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
