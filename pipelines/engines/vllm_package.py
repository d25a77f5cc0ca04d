"""Where vLLM is: among our packages, or beside them, where `make vllm` puts it."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from cluster.errors import UserError

BESIDE = Path(sys.prefix) / "vllm"
"""Not among our packages, of which some would see it and behave otherwise."""

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


def check_installed() -> None:
    """Raise UserError when vLLM is not here."""
    if find_spec("vllm") is None and not (BESIDE / "vllm").is_dir():
        raise UserError(
            "cluster.engine is vllm, and vLLM is not installed here.",
            "`make vllm` brings it for a CPU; on a GPU node install the vllm of requirements-vllm.lock's version. "
            "Or set cluster.engine: transformers.",
        )


def make_importable() -> None:
    """Let this process and those that it starts import vLLM. Raises UserError when it is not installed."""
    check_installed()
    if find_spec("vllm") is None:
        # Last in this process; in others nothing else is in its folder that we have too.
        sys.path.append(str(BESIDE))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(BESIDE)]))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
