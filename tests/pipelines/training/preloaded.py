"""What workers of the tests need and take seconds to import: once, in the process that all of them are forked from."""

import peft  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import pipelines.training.worker  # noqa: F401
from cluster.connect import prepare_environment
from pipelines.training.engine import import_deepspeed

prepare_environment()
import_deepspeed()
