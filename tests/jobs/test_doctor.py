import importlib.metadata
import platform
import shutil
import sys
from collections import namedtuple
from importlib.metadata import Distribution, PackageNotFoundError

import pytest

from gpt2kit import _native
from gpt2kit.jobs.doctor import doctor


def findings():
    return {finding.subject: finding for finding in doctor()}


@pytest.mark.parametrize("package", ["gpt2kit", "numpy", "tiktoken", "torch", "matplotlib", "tokenizers"])
def test_versions_are_those_installed(package):
    assert findings()[package].found == importlib.metadata.version(package)


def test_python_and_system_are_named():
    assert findings()["python"].found.startswith(platform.python_version())


def test_a_complete_machine_needs_no_packages():
    assert not any(findings()[package].fix for package in ("torch", "matplotlib", "tokenizers"))


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "train"), ("matplotlib", "train"), ("tokenizers", "tokenizers")]
)
def test_a_missing_package_comes_with_its_remedy(monkeypatch, package, extra):
    installed = Distribution.from_name

    def from_name(name):
        if name == package:
            raise PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(Distribution, "from_name", from_name)
    finding = findings()[package]
    assert finding.found.startswith("missing")
    assert finding.fix == f"pip install 'gpt2kit[{extra}]'"


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "short"), [(1_000_000, True), (500 * 10**9, False)])
def test_a_full_disk_is_pointed_out(monkeypatch, free, short):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 0, free))
    assert bool(findings()["disk"].fix) is short


def test_the_engine_that_auto_means_is_named():
    assert findings()["engine"].found == "auto means native"
    assert findings()["native"].found.endswith(" ".join(_native.isas()))


def test_where_the_native_engine_was_not_built_it_is_told_what_serves_instead(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpt2kit._native", None)
    assert findings()["engine"].found == "auto means torch"
    assert findings()["native"].found == "not built; torch serves instead"
    assert "g++" in findings()["native"].fix
    monkeypatch.setitem(sys.modules, "torch", None)
    assert findings()["native"].found == "not built; reference, which is slow, serves instead"
