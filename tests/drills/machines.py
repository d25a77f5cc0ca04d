"""Machines that an autoscaler starts: each is a few processes of this machine, with folders of its own."""

from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Machines(FakeMultiNodeProvider):
    """Ray's own provider; its machines share all but what runtime environments are unpacked into."""

    def _create_node_with_resources_and_labels(self, *arguments):
        with self.lock:
            # Else one machine removes the working directory that another's workers stand in.
            ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"runtime_resources-{self._next_node_id}"
            super()._create_node_with_resources_and_labels(*arguments)
