"""Write requirements.lock: the versions that are installed of all that pyproject.toml asks for, directly or not.

`make lock`, after installing other versions into the environment and running the tests with them.
"""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("postgres", "examples", "dev")
HEAD = """\
# Exact versions of everything that is installed; `make setup` installs them, `make lock` renews this file.
# torch is installed first and alone, as a CPU build where there is no GPU.
"""


def wanted():
    """The requirements of the project and of the extras that the environment has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def closure(requirements):
    """Canonical name -> distribution of all that they bring; raises SystemExit where one is missing or too old."""
    found, extras = {}, {}
    while requirements:
        requirement = requirements.pop()
        name = canonicalize_name(requirement.name)
        if name in found and requirement.extras <= extras[name]:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"{requirement} is not installed")
        if distribution.version.partition("+")[0] not in requirement.specifier:
            sys.exit(f"{requirement} is asked for, {distribution.version} is installed")
        found[name] = distribution
        extras[name] = extras.get(name, set()) | requirement.extras
        for line in distribution.requires or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras[name] | {""}):
                requirements.append(inner)
    return found


def main():
    """Write the lock."""
    found = closure(wanted())
    lines = [
        # A build such as 2.13.0+cpu belongs to one machine: the lock names the release.
        f"{distribution.metadata['Name']}=={distribution.version.partition('+')[0]}"
        for _, distribution in sorted(found.items())
    ]
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
