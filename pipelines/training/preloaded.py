"""What a training worker needs and takes seconds to import: once, in the process that workers are forked from.

All but Ray: it reads which job it works for when it is imported.
"""

import pandas  # noqa: F401
import peft  # noqa: F401
import pyarrow.dataset  # noqa: F401

# What every architecture's module imports comes with one of them.
import transformers.models.llama.modeling_llama  # noqa: F401

import pipelines.training.worker  # noqa: F401
from cluster.connect import prepare_environment
from pipelines.training.engine import import_deepspeed

prepare_environment()
import_deepspeed()
