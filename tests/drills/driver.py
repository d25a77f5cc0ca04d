"""A driver of a training run, to be killed: `python -m tests.drills.driver JOB`, a pickled (job, place, name)."""

import pickle
import sys
from pathlib import Path


def main():
    from cluster.connect import connect
    from pipelines.progress import Progress
    from pipelines.training.trainer import fit
    from pipelines.workspace import Workspace

    job, place, name = pickle.loads(Path(sys.argv[1]).read_bytes())
    workspace = Workspace()
    connect(workspace.settings)

    def on_event(event):
        if event["kind"] == "step":
            print("step", event["step"], flush=True)

    fit(job, place, name, workspace, Progress(quiet=True), on_event)


if __name__ == "__main__":
    main()
