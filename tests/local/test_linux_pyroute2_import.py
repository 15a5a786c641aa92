"""The stand-in for pyroute2's package: a script that imports pyroute2 itself notices nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# What there is in the whole package, by name; types and functions by where they come from.
LISTING = """
def listing(module):
    return sorted(f"{name} {getattr(value, '__module__', '')} {type(value).__name__}"
                  for name, value in vars(module).items()
                  if not name.startswith("__") and type(value).__name__ != "module")
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WAYS = {
    "attribute": "import pyroute2; pyroute2.IPRoute",
    "from": "from pyroute2 import IPRoute, NDB; import pyroute2",
    "all": "import pyroute2; assert pyroute2.IPRoute in pyroute2.__all__",  # pyroute2's own holds classes, not names
    "version": "import pyroute2; assert pyroute2.__version__[0].isdigit()",
    "dir": "import pyroute2; assert 'IPRoute' in dir(pyroute2)",
    "members": "import inspect, pyroute2; assert 'IPRoute' in dict(inspect.getmembers(pyroute2))",
    "submodule": "import pyroute2.iproute.linux; pyroute2.iproute.linux.IPRoute; pyroute2.IPRoute",
    "import_module": "import importlib; pyroute2 = importlib.import_module('pyroute2'); pyroute2.IPRoute",
    "reload": "import importlib, pyroute2; importlib.reload(pyroute2); pyroute2.IPRoute",
    "miss": "import pyroute2; assert not hasattr(pyroute2, 'nothing_of_that_name'); pyroute2.IPRoute",
}


@pytest.fixture(scope="module")
def whole() -> str:
    return python(f"{LISTING}import pyroute2; print(listing(pyroute2))")


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_package_is_there_afterwards(way: str, whole: str) -> None:
    code = f"{LISTING}import torchnet.linux.link_setup\n{WAYS[way]}\nprint(listing(pyroute2))"
    assert python(code) == whole


def test_a_package_that_was_imported_before_is_left_alone(whole: str) -> None:
    code = "import pyroute2; before = pyroute2, pyroute2.IPRoute\nimport torchnet.linux.link_setup, pyroute2 as after\n"
    code += "assert before == (after, after.IPRoute) and type(after) is type(after.netlink)"
    assert python(f"{LISTING}{code}; print(listing(after))") == whole


def test_classes_are_the_same_on_either_way() -> None:
    python(
        "import torchnet.linux.link_setup as links, pyroute2\n"
        "from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg\n"
        "assert links.ifinfmsg is ifinfmsg is pyroute2.netlink.rtnl.ifinfmsg.ifinfmsg\n"
        "pyroute2.IPRoute\n"
        "assert links.ifinfmsg is pyroute2.netlink.rtnl.ifinfmsg.ifinfmsg"
    )


def test_the_kernels_door_does_not_load_the_whole_package() -> None:
    loaded = python(
        "import sys, torchnet.linux.link_setup\n"
        "print(*(name for name in sys.modules if name.startswith('pyroute2')))"
    ).split()
    assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded
    assert not {"pyroute2.iproute", "pyroute2.ndb", "pyroute2.netlink.nlsocket", "asyncio"} & set(loaded)
    assert len(loaded) < 80


def test_a_missing_pyroute2_is_named_with_the_remedy() -> None:
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; sys.path.insert(0, '.')\n"
    )
    code += "try: import torchnet.linux.link_setup\n"
    code += "except ModuleNotFoundError as error: print(error.name, '|', error)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "pyroute2 | pyroute2 is missing: pip install pyroute2"
