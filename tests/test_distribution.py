"""The five packages stand at the top of site-packages, so nobody else's may, and nothing more of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"config", "feeds", "notifiers", "rules", "monitord"}


@pytest.fixture(scope="module")
def setuptools_table() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    return table


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_top_level_name_belongs_to_this_distribution_alone(name: str) -> None:
    assert set(packages_distributions()[name]) == {"monitord"}


def test_our_tests_are_installed_nowhere() -> None:
    assert "monitord" not in packages_distributions().get("tests", ())


def test_the_console_script_starts_the_command_line() -> None:
    (script,) = [script for script in entry_points(group="console_scripts") if script.name == "monitord"]
    assert script.value == "monitord.__main__:main"
    assert distribution("monitord").metadata["License-Expression"] == "MIT"


def test_every_package_folder_is_listed_and_nothing_else(setuptools_table: dict[str, object]) -> None:
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for name in PACKAGES
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(setuptools_table["packages"]) == folders  # type: ignore[call-overload]


COMPILED = (".py", ".pyc", ".c", ".h", ".so", ".pyd")
"""Built into what the wheel holds, or what is built; the table of extension modules names the sources."""


def test_every_file_that_is_no_python_is_listed_as_package_data(setuptools_table: dict[str, object]) -> None:
    listed: dict[str, list[str]] = setuptools_table["package-data"]  # type: ignore[assignment]
    shipped = {path for name, globs in listed.items() for glob in globs for path in (ROOT / name).glob(glob)}
    there = {
        path
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in COMPILED and not path.name.startswith(".")
    }
    assert there <= shipped, sorted(str(path.relative_to(ROOT)) for path in there - shipped)


def test_every_c_file_is_a_module_that_an_installation_does_without(setuptools_table: dict[str, object]) -> None:
    modules: list[dict[str, object]] = setuptools_table["ext-modules"]  # type: ignore[assignment]
    sources = {ROOT / source for module in modules for source in module["sources"]}  # type: ignore[attr-defined]
    assert sources == {path for name in PACKAGES for path in (ROOT / name).rglob("*.c")}
    assert all(module["optional"] for module in modules)


@pytest.mark.acceptance
def test_the_wheel_holds_the_five_packages_and_no_tests(tmp_path: Path) -> None:
    build = (
        "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))",
        str(tmp_path),
    )
    # A build writes egg-info and build/ beside its sources: let it do so in a copy.
    copy = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", *sorted(PACKAGES)):
        _copy(ROOT / name, copy / name)
    built = subprocess.run([sys.executable, "-c", *build], cwd=copy, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert "config/default.toml" in names
    assert "monitord/commands/run.py" in names


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
