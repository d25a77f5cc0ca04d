"""DeepSpeed's compiled operators: communication on the CPU, built ahead, and I/O for what is offloaded to a disk.

`python -m cluster.operators` builds the first, so that no training worker waits for a compiler, and says what it did;
with --disk it builds the others too.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connect import prepare_environment
from cluster.errors import UserError

if TYPE_CHECKING:
    from deepspeed.ops.op_builder.builder import OpBuilder

OPERATOR = "deepspeed_shm_comm"
"""What `deepspeed.comm` loads in every CPU worker; without it the first worker compiles for a minute."""

DISK_OPERATORS = ("pin_memory", "async_io")
"""What ZeRO's offload to a disk loads, in this order."""

UNITS = 3
"""Files that an operator is compiled as which has more sources than that; of fewer sources it is one."""

STALE_LOCK_S = 600
"""Age (seconds) from which a lock is left over from a build that died: torch itself waits for it for ever."""


def extensions_folder() -> Path:
    """Where torch keeps compiled operators, a folder each."""
    import torch

    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    if root is None:
        from torch.utils.cpp_extension import get_default_build_root

        kind = f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
        root = f"{get_default_build_root()}/py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}_{kind}"
    return Path(root)


def operator_folder() -> Path:
    """The compiled operator for communication on the CPU."""
    return extensions_folder() / OPERATOR


def built() -> bool:
    """Whether the compiled operator is there and loads."""
    import importlib.util

    prepare_environment()
    library = operator_folder() / f"{OPERATOR}.so"
    specification = importlib.util.spec_from_file_location(OPERATOR, library)
    if not library.is_file() or specification is None or specification.loader is None:
        return False
    try:
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
    except ImportError:
        # Compiled against another torch.
        return False
    return True


def clear_stale_lock(folder: Path, now: float) -> bool:
    """Remove the lock of a build that died; whether there was one."""
    lock = folder / "lock"
    if not lock.exists() or now - lock.stat().st_mtime < STALE_LOCK_S:
        return False
    lock.unlink(missing_ok=True)
    return True


def build() -> float:
    """Compile the operator where it is missing; the seconds it took. Raises UserError when it cannot be."""
    prepare_environment()
    started = time.monotonic()
    clear_stale_lock(operator_folder(), time.time())
    try:
        from deepspeed.ops.op_builder import ShareMemCommBuilder

        ShareMemCommBuilder().load(verbose=False)
    except Exception as error:
        # Builders raise RuntimeError, CalledProcessError and ImportError alike.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"DeepSpeed's CPU operator cannot be built: {reason}", "Install a C++ compiler (g++) and ninja."
        ) from error
    return time.monotonic() - started


def load_disk_operators() -> None:
    """Load what offloading to a disk needs, compiled where it is missing (a minute), by one process at a time.

    Raises UserError where libaio or a compiler is missing.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder
    from deepspeed.ops.op_builder.pin_memory import PinMemoryBuilder
    from filelock import FileLock

    builder, folder = AsyncIOBuilder(), extensions_folder()
    if not builder.is_compatible(verbose=False):
        raise UserError(
            "train.deepspeed: offloading to nvme needs the library libaio and a C compiler, and this worker's machine "
            "lacks one of them.",
            "Install both on every node (Debian, Ubuntu: libaio-dev and g++), or offload to cpu.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "disk-operators.lock"):
        for name in DISK_OPERATORS:
            # Left over from a build that died, as ours is held: torch would wait for it for ever.
            (folder / name / "lock").unlink(missing_ok=True)
        try:
            for kind in (PinMemoryBuilder, AsyncIOBuilder):
                try:
                    _joined(kind(), folder).load(verbose=False)
                except RuntimeError:
                    # Sources of another DeepSpeed may not stand in one file.
                    kind().load(verbose=False)
        except Exception as error:
            # Builders raise RuntimeError, CalledProcessError and ImportError alike.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"DeepSpeed's operators for a disk cannot be built: {reason}", "Install a C++ compiler (g++) and ninja."
            ) from error


def _joined(builder: "OpBuilder", folder: Path) -> "OpBuilder":
    """`builder`, which now compiles files in `folder` that include several of its sources each, for no debugger.

    Torch's headers, which each compilation reads anew, are nearly all of its time: four of them instead of fifteen.
    """
    sources = [Path(builder.deepspeed_src_path(each)).resolve() for each in builder.sources()]
    # Some headers have no guard: what was imported once is not included again.
    headers = sorted({header for each in sources for header in each.parent.glob("*.h")})
    # Of a long list neighbours define the same names, and so may not be in one file.
    parts = [sources[start::UNITS] for start in range(UNITS)] if len(sources) > UNITS else [sources]
    joined = []
    for number, part in enumerate(parts):
        lines = [*(f'#import "{each}"' for each in headers), *(f'#include "{each}"' for each in part)]
        unit, text = folder / f"{builder.name}-{number}.cpp", "\n".join(lines) + "\n"
        if not unit.exists() or unit.read_text(encoding="utf-8") != text:
            unit.write_text(text, encoding="utf-8")
        joined.append(str(unit))
    flags = builder.cxx_args()
    builder.sources = lambda: joined
    builder.cxx_args = lambda: [*flags, "-g0"]
    return builder


def main(arguments: list[str] | None = None) -> int:
    """Build; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.operators", description="Compile DeepSpeed's operators.")
    parser.add_argument("--disk", action="store_true", help="those for offloading to a disk too; they need libaio")
    options = parser.parse_args(arguments)
    try:
        seconds = build()
        if options.disk:
            load_disk_operators()
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{OPERATOR}: ready in {operator_folder()} ({seconds:.0f} s)")
    if options.disk:
        print(f"{' and '.join(DISK_OPERATORS)}: ready in {extensions_folder()}")
    return 0


if __name__ == "__main__":
    from cluster import operators

    sys.exit(operators.main())
