"""Ray Data as it is run here: in order, in small blocks, on a small machine too."""

import logging
import os
from typing import TYPE_CHECKING

from cluster.settings import Settings

if TYPE_CHECKING:
    from ray.data import DataContext

BLOCK_BYTES = 8 * 2**20
"""Size at which a task hands its rows on. Ray's own 128 MiB would fill a small machine's object store."""


def in_order() -> "DataContext":
    """A context for datasets that are made inside `DataContext.current(...)`: they keep it."""
    from ray.data import DataContext

    # Its console speaks of plans and bars; our bar says what people ask.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    # What comes out must not depend on which task ends first.
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    # As it is, not wrapped: what a worker lacks is a sentence for people.
    context.raise_original_map_exception = True
    return context


def most_processes(settings: Settings) -> int | None:
    """On one machine as many as it has cores: the embedded Ray promises more, and each holds memory. None: any."""
    from cluster.connect import starts_its_own

    return os.cpu_count() or 2 if starts_its_own(settings) else None
