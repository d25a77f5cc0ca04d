"""Starting the panel: Streamlit in a process of its own, with our packages in reach."""

import os
import subprocess
import sys
from pathlib import Path

from cluster.packages import python_path


def command(host: str, port: int) -> list[str]:
    """The command line that serves the panel on `host`:`port`."""
    app = Path(__file__).with_name("app.py")
    options = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        # Nobody edits it while it runs: not a thread for each of our files that looks after it.
        "server.fileWatcherType": "none",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    if host not in ("127.0.0.1", "localhost", "::1"):
        # Asked to listen to others, the panel answers under whatever name they reach it by.
        flags.append("--server.allowedHosts=*")
    return [sys.executable, "-m", "streamlit", "run", str(app), *flags]


def environment() -> dict[str, str]:
    """This environment, with our packages on the path and short waits for a tracking server that is away."""
    return {
        **os.environ,
        "PYTHONPATH": python_path(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
    }


def launch(host: str = "127.0.0.1", port: int = 8501) -> int:
    """Serve the panel until it is stopped; Streamlit's exit code."""
    process = subprocess.Popen(command(host, port), env=environment())
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal sent the interrupt to Streamlit too: let it close its connections.
        return process.wait()
