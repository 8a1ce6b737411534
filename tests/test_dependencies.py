# SPDX-License-Identifier: Apache-2.0
"""What setup.cfg declares is what the product imports, no more and no less."""

import ast
import configparser
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("lipsync_bench", "models", "metrics", "datamodules")


@cache
def declared() -> dict[str, set[str]]:
    """The distributions of install_requires, each with the names that it has under site-packages."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    names = [
        re.match(r"[\w-]+", line)[0] for line in config["options"]["install_requires"].split("\n") if line[:1].isalpha()
    ]  # type: ignore[index]
    return {name: {file.parts[0].partition(".")[0] for file in metadata.files(name) or ()} for name in names}


def extras() -> set[str]:
    """The names of packages that only some commands need; they may be missing."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = config["options.extras_require"]
    return {re.split(r"\W", line)[0] for name in groups if name != "dev" for line in groups[name].split()}


@cache
def imported() -> dict[str, str]:
    """Names of other packages that the product imports, or whose folder it looks for, with a file that does."""
    found: dict[str, str] = {}
    for path in (path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            ast.unparse(node.targets[0]): node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        modules: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
                modules.append(constants.get(ast.unparse(node.args[0]), ""))
        found.update({module.partition(".")[0]: str(path.relative_to(ROOT)) for module in modules if module})
    return found


def test_every_declared_package_is_imported():
    unused = [name for name, provided in declared().items() if not provided & set(imported())]
    assert not unused, f"{unused} in install_requires of setup.cfg, but nothing imports them"


def test_every_imported_package_is_declared():
    known = {"lipsync_bench", *sys.stdlib_module_names, *extras()}.union(*declared().values())
    unknown = {name: path for name, path in imported().items() if name not in known}
    assert not unknown, f"{unknown} imported, but not in install_requires of setup.cfg"
