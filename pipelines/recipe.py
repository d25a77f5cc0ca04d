"""One recipe: everything that a run depends on, and nothing else.

What concerns the examples is in `recipe_data.py`, the service in `recipe_serve.py`, experiments in
`recipe_experiment.py`. Sections are frozen and refuse unknown keys. The text under each field is the one description
of it: `sluice schema`, `sluice init` and the panel's labels show it.
"""

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.recipe_data import Audit, Dataset, Split
from pipelines.recipe_experiment import Experiment
from pipelines.recipe_serve import Serve
from pipelines.section import Fraction, ModelName, PositiveFloat, PowerOfTwo, Section, nearest


def _power_of_two(value: int | str) -> int | str:
    if isinstance(value, int) and value & (value - 1):
        lower = 2 ** int(math.log2(value))
        raise ValueError(f"must be a power of two: {lower} or {2 * lower}")
    return value


class BaseModelChoice(Section):
    """A base model to start from."""

    base: ModelName
    """Hub name or local folder (safetensors only)."""
    revision: str | None = None
    """Hub commit or tag; without it, the present one is looked up and recorded."""


class DeepSpeed(Section):
    """What DeepSpeed shards over the workers."""

    stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage: 0 nothing, 1 optimiser state, 2 and gradients, 3 and parameters."""
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    """Where the optimiser state lives: `cpu` needs stage 1 or above, `nvme` stage 3 and nvme_path."""
    offload_param: Literal["none", "cpu", "nvme"] = "none"
    """Where parameters wait that no layer uses just now; `cpu` and `nvme` need stage 3."""
    nvme_path: Annotated[str, Field(min_length=1)] | None = None
    """Folder on a fast local disk of every worker, for what is offloaded to `nvme`; needs libaio there."""

    @model_validator(mode="after")
    def _offload_needs_sharding(self) -> "DeepSpeed":
        if self.offload_optimizer != "none" and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1 or above")
        if self.offload_param != "none" and self.stage != 3:
            raise ValueError("offload_param needs stage 3: below it every worker holds all parameters")
        if self.offload_optimizer == "nvme" and self.stage != 3:
            raise ValueError("offload_optimizer: nvme needs stage 3; below it DeepSpeed offloads to cpu only")
        uses_disk = "nvme" in (self.offload_optimizer, self.offload_param)
        if uses_disk and self.nvme_path is None:
            raise ValueError("offloading to nvme needs nvme_path, a folder on a fast local disk")
        if self.nvme_path is not None and not uses_disk:
            raise ValueError("nvme_path has no use unless something is offloaded to nvme")
        return self


class Train(Section):
    """How the model learns. Names are Hugging Face's; batch sizes are powers of two."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """`lora` trains adapters (usual learning rates 1e-4 to 1e-3), `qlora` the same over a base in 4 bits (a GPU only;
    served over the base as it was published), `full` every weight (1e-5 to 5e-5)."""
    objective: Literal["sft", "dpo", "orpo"] = "sft"
    """What is learnt: `sft` to give the answers; from preference pairs, `dpo` (Rafailov et al. 2023, arXiv 2305.18290)
    to prefer the chosen answer more than the base does, `orpo` (Hong et al. 2024, arXiv 2403.07691) to give the chosen
    answer and to prefer it."""
    beta: PositiveFloat = 0.1
    """Weight of the preference: for `dpo` how closely the model stays to its base (higher: closer), for `orpo` the
    odds ratio's share of the loss (the paper's lambda)."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; without it 2e-4 for LoRA and 2e-5 for full fine-tuning, 1e-5 and 1e-6 from preferences."""
    num_train_epochs: PositiveFloat = 3.0
    """Passes over the training side."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimiser steps, whatever the epochs."""
    global_batch_size: PowerOfTwo = 16
    """Sequences (packed bins) per optimiser step over all workers; accumulation follows from it."""
    per_device_train_batch_size: PowerOfTwo | Literal["auto"] = 1
    """Sequences per forward pass on one worker. `auto`: the largest power of two that fits the device's memory and
    is no slower than half of it, found before the first step and remembered; what is learnt stays the same."""
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens in a sequence: of a packed bin, and the most an example may have (source and target together)."""
    packing: bool = True
    """Put several examples into one sequence; they never see each other. Encoder-decoders read each by itself."""
    on_overlong: Literal["drop", "truncate", "raise"] = "drop"
    """An example longer than max_length: left out, cut at the end, or an error; always counted."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.03
    """Steps to the peak; below 1: a share of all steps."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's decay."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first moment."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second moment."""
    adam_epsilon: PositiveFloat = 1e-8
    """AdamW's denominator."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the model: `auto` is bfloat16 on GPUs and CPUs that multiply in it natively, else float32.
    Optimiser state stays in 32 bits."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Compile the model's layers (torch.compile): some minutes more at the start, faster steps on a GPU."""
    lora_r: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapters."""
    lora_alpha: PositiveFloat = 32
    """Scale of the adapters: alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    use_rslora: bool = False
    """Scale of the adapters: alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732); for ranks of 64 and above."""
    use_dora: bool = False
    """Train each weight's magnitude beside its direction (Liu et al. 2024, arXiv 2402.09353): nearer to full
    fine-tuning at low ranks, and slower."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Module names that get adapters."""
    deepspeed: DeepSpeed = DeepSpeed()
    """ZeRO stage and offload."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Cross-validation: which of split.folds validates, while the others are learnt from; the validation side waits.
    Without it the whole training side is learnt from, and the validation side validates."""
    eval_steps: PositiveFloat = 0.1
    """Steps between validations (and checkpoints); below 1: a share of all steps."""
    early_stopping_patience: Annotated[int, Field(ge=1)] = 3
    """Validations without improvement before training stops."""
    early_stopping_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Improvement of the validation loss that counts as one."""

    divergence_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = 3.0
    """Training has diverged when its loss stays above this many times its running median (and above where it began)
    for divergence_steps steps; null: only when it is no number."""
    divergence_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """Steps in a row."""
    max_hours: PositiveFloat | None = None
    """Training ends at the next step, with a validation and the best kept, when it has taken so many hours, those
    before a resume included; a sweep's trials have sweep.max_steps instead."""
    max_cost: PositiveFloat | None = None
    """The same for money: the workers' hours x cluster.price_per_hour."""
    logging_steps: Annotated[int, Field(ge=1)] = 1
    """Steps between readings of the loss: in between nothing waits for the device; a stop, a budget and a loss that
    is no number are noticed then."""
    report_to: tuple[Literal["wandb"], ...] = ()
    """Where the run's figures go besides MLflow: `wandb` (the extra; its key comes from the environment)."""

    _sizes = field_validator("global_batch_size", "per_device_train_batch_size")(_power_of_two)

    @model_validator(mode="after")
    def _consistent(self) -> "Train":
        if self.sequences_per_pass > self.global_batch_size:
            raise ValueError(
                f"per_device_train_batch_size {self.per_device_train_batch_size} is above "
                f"global_batch_size {self.global_batch_size}"
            )
        if self.method == "full" and (self.use_dora or self.use_rslora):
            raise ValueError("use_dora and use_rslora concern adapters: method full has none")
        if self.use_dora and self.deepspeed.stage == 3:
            # PEFT reads the weight beside the layer's own pass, and DeepSpeed has it gathered only during that.
            raise ValueError("use_dora needs deepspeed.stage 0, 1 or 2: at stage 3 a weight's length cannot be taken")
        if self.torch_compile and self.deepspeed.stage == 3:
            raise ValueError("torch_compile needs deepspeed.stage 0, 1 or 2: stage 3 gathers weights inside the layers")
        if self.method == "qlora" and self.deepspeed.stage == 3:
            raise ValueError("method qlora needs deepspeed.stage 0, 1 or 2: weights in 4 bits are not sharded")
        return self

    @property
    def trains_adapters(self) -> bool:
        """Whether what is trained is an adapter over a frozen base."""
        return self.method != "full"

    @property
    def learns_from_pairs(self) -> bool:
        """Whether each example is a chosen and a rejected answer."""
        return self.objective != "sft"

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, or the usual one.

        LoRA 2e-4 (Hu et al. 2021) and full 2e-5; from preferences 1e-6 for all weights, as TRL has it, and ten times
        that for adapters.
        """
        usual = {(True, False): 2e-4, (False, False): 2e-5, (True, True): 1e-5, (False, True): 1e-6}
        return self.learning_rate or usual[self.trains_adapters, self.learns_from_pairs]

    @property
    def sequences_per_pass(self) -> int:
        """per_device_train_batch_size; 1, which must fit, where it is still to be found."""
        width = self.per_device_train_batch_size
        return 1 if width == "auto" else width

    def learnt_from(self) -> dict[str, Any]:
        """What of the section changes what is learnt: what fingerprints cover."""
        content = self.model_dump(
            mode="json", exclude={"logging_steps": True, "report_to": True, "deepspeed": {"nvme_path": True}}
        )
        if self.fold is None:
            # As before there were folds: reports of then still say what they said.
            del content["fold"]
        return content


NOT_SWEPT = {
    "deepspeed": "it does not change what is learnt",
    "dtype": "evaluation and serving compute as train.dtype says",
    "objective": "losses of other objectives are not comparable",
    "beta": "it scales the loss, and so losses under other values are not comparable",
    "torch_compile": "it does not change what is learnt",
    "fold": "losses on other examples are not comparable",
    "max_steps": "trials run for sweep.max_steps",
    "max_hours": "trials run for sweep.max_steps",
    "max_cost": "trials run for sweep.max_steps",
    "logging_steps": "it does not change what is learnt",
    "report_to": "it does not change what is learnt",
    "num_train_epochs": "trials run for sweep.max_steps",
    "eval_steps": "trials are validated at the rungs",
    "early_stopping_patience": "the scheduler stops trials",
    "early_stopping_threshold": "the scheduler stops trials",
    "max_length": "losses over other inputs are not comparable",
    "packing": "losses over other inputs are not comparable",
    "on_overlong": "losses over other inputs are not comparable",
}
"""Keys of train that a search space may not hold, and why."""

SearchSpace = dict[str, dict[Literal["choice", "loguniform", "uniform", "randint", "when"], Any]]

LORA_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
"""Keys of train that only adapters have."""


class Sweep(Section):
    """A search over hyper-parameters; `sluice train` then trains the winner."""

    num_samples: Annotated[int, Field(ge=1, le=512)] = 8
    """Trials of the search, the recipe's own values among them; a grid has as many as it has points."""
    search: Literal["random", "grid", "tpe"] = "random"
    """`tpe` draws where earlier trials did well (Optuna's tree-structured Parzen estimator); `grid` tries all."""
    objectives: tuple[Literal["loss", "cost"], ...] = ("loss",)
    """`[loss, cost]`: the cheapest per step among the trials within 1 % of the lowest loss wins."""
    scheduler: Literal["asha", "median", "fifo"] = "asha"
    """`asha` halves at each rung; `median` stops what is worse than the middle; `fifo` runs each to its end."""
    max_steps: Annotated[int, Field(ge=2)] = 32
    """Optimiser steps of a trial that is never stopped."""
    grace_steps: Annotated[int, Field(ge=1)] = 8
    """Steps before a trial may be stopped; trials take turns after so many."""
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    """One in this many trials goes on past each rung."""
    max_hours: PositiveFloat | None = None
    """Wall-clock after which no trial learns any more, the time before a resume included."""
    max_cost: PositiveFloat | None = None
    """The same in cluster.price_per_hour's currency, over all workers."""
    prior: Annotated[int, Field(ge=0, le=16)] = 0
    """Winners of earlier sweeps over the same base that are tried first."""
    default_trial: bool = True
    """Try the recipe's own train section too, first: what the search gains over it is then known."""
    confirm_seeds: Annotated[int, Field(ge=0, le=8)] = 0
    """Further seeds under which the best three are run to their end; the lowest mean wins, with its interval."""
    space: SearchSpace | None = None
    """Key of `train` -> {choice: [...]}, or {loguniform: ...}, {uniform: ...} or {randint: ...} of [low, high]; with
    {when: {KEY: [VALUES]}} only where another key has one of these values. Without it: the usual ranges."""

    @model_validator(mode="after")
    def _space_names_train_keys(self) -> "Sweep":
        if self.space is not None and not self.space:
            raise ValueError("space is empty: name at least one key of train, or leave it out for the usual ranges")
        for key, domain in (self.space or {}).items():
            self._check_key(key)
            kinds = [kind for kind in domain if kind != "when"]
            if len(kinds) != 1:
                raise ValueError(f"space.{key} needs exactly one of choice, loguniform, uniform, randint")
            self._check_domain(key, kinds[0], domain[kinds[0]])
            if kinds[0] in ("uniform", "loguniform") and not _takes_fractions(key, domain[kinds[0]]):
                raise ValueError(f"space.{key}.{kinds[0]} draws fractions and {key} takes whole numbers: use randint")
            self._check_condition(key, domain.get("when", {}))
            if self.search == "grid" and kinds[0] in ("loguniform", "uniform"):
                raise ValueError(f"space.{key}: a grid needs choice or randint, {kinds[0]} has no end of points")
        if self.grace_steps > self.max_steps:
            raise ValueError(f"grace_steps {self.grace_steps} is above max_steps {self.max_steps}")
        if self.objectives not in (("loss",), ("loss", "cost")):
            raise ValueError("objectives are [loss] or [loss, cost]")
        if self.search == "grid" and self.space is None:
            raise ValueError("search grid needs a space of choices")
        return self

    @staticmethod
    def _check_key(key: str) -> None:
        if key not in Train.model_fields:
            raise ValueError(f"space.{key} is no key of train{nearest(key, Train.model_fields)}")
        if key in NOT_SWEPT:
            raise ValueError(f"space.{key} cannot be swept: {NOT_SWEPT[key]}")

    def _check_condition(self, key: str, when: Any) -> None:
        if not isinstance(when, dict) or not all(isinstance(values, list) for values in when.values()):
            raise ValueError(f"space.{key}.when needs {{KEY: [VALUES]}}")
        for other in when:
            if other not in Train.model_fields:
                raise ValueError(f"space.{key}.when.{other} is no key of train{nearest(other, Train.model_fields)}")
            if "when" in (self.space or {}).get(other, {}) or other == key:
                raise ValueError(f"space.{key}.when.{other}: a condition may not depend on a key with one")

    @staticmethod
    def _check_domain(key: str, kind: str, values: Any) -> None:
        if kind == "choice":
            if not isinstance(values, list) or not values:
                raise ValueError(f"space.{key}.choice needs a list of values")
            return
        numbers = isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values
        )
        if not numbers or len(values) != 2 or not values[0] < values[1]:
            raise ValueError(f"space.{key}.{kind} needs two numbers, low below high")
        if kind == "loguniform" and values[0] <= 0:
            raise ValueError(f"space.{key}.loguniform needs a low above 0")
        if kind == "randint" and not all(isinstance(v, int) for v in values):
            raise ValueError(f"space.{key}.randint needs whole numbers")

    def decides(self) -> dict[str, Any]:
        """What of the section decides who wins: what fingerprints cover."""
        # Earlier winners are only where the search begins.
        return self.model_dump(mode="json", exclude={"prior"})


def edges(space: SearchSpace) -> list[dict[str, Any]]:
    """Values that must be valid before a trial starts: each choice, both ends of a range, where a condition holds."""
    found: list[dict[str, Any]] = []
    for key, domain in space.items():
        ((kind, values),) = ((kind, values) for kind, values in domain.items() if kind != "when")
        # As Python's range, randint leaves out its upper end.
        ends = [values[0], values[1] - 1] if kind == "randint" else values
        where = {other: allowed[0] for other, allowed in domain.get("when", {}).items() if allowed}
        found += [where | {key: value} for value in ends]
    return found


def _takes_fractions(key: str, bounds: list[float]) -> bool:
    """Whether train's key takes what is drawn between the bounds."""
    try:
        # No whole number lies there.
        Train.model_validate({key: bounds[0] + (bounds[1] - bounds[0]) * 0.3819660113})
    except ValidationError as error:
        return not any(each["type"] == "int_from_float" for each in error.errors())
    return True


Metric = Literal["loss", "rouge1", "rouge2", "rougeL", "bleu", "meteor"]


class Evaluate(Section):
    """How candidates are compared on the test side."""

    primary: Metric = "rougeL"
    """The metric that decides, paired per example."""
    max_examples: Annotated[int, Field(ge=8)] | None = None
    """Test examples to generate for (seeded choice); all of them without it."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Longest generated answer, in tokens."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Prompts that are generated together."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Bootstrap resamples."""
    non_inferiority_margin: Fraction = 0.02
    """How much worse a score other than the primary may be (score points, 0 to 1; nats for loss)."""
    guardrails: dict[Metric, Fraction] | None = None
    """The scores that may not be worse, each with its own margin, chosen before one has looked: {bleu: 0.01}. Without
    it all but the primary, by non_inferiority_margin."""

    @model_validator(mode="after")
    def _primary_guards_nothing(self) -> "Evaluate":
        if self.primary in (self.guardrails or {}):
            raise ValueError(f"guardrails names the primary metric {self.primary}, which must be better")
        return self

    @property
    def margins(self) -> dict[str, float]:
        """Score -> how much worse it may be; scores that are not in it are reported and decide nothing."""
        if self.guardrails is not None:
            return {str(metric): margin for metric, margin in self.guardrails.items()}
        return {metric: self.non_inferiority_margin for metric in get_args(Metric) if metric != self.primary}


class Cluster(Section):
    """Where the work runs, not what it is: no fingerprint covers this section, but for an engine that is named."""

    num_workers: Annotated[int, Field(ge=1, le=4096)] = 1
    """Training workers; one GPU each where there are GPUs."""
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Training begins, and goes on from its last checkpoint, with as few workers as these while there is no room for
    num_workers, and takes more as they come; the global batch stays what it is. Without it: with all or none."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: when the Ray cluster has GPUs, or could start them for the `accelerator_type` that is named."""
    accelerator_type: str | None = None
    """Ray's name of the GPU that each worker asks for, such as A100. Name it, or set `use_gpu: true`, where nodes
    with GPUs start only when work asks for them."""
    cpus_per_worker: PositiveFloat = 1.0
    """Logical CPUs that each training worker reserves."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates, in evaluation and service: `transformers`, our own engine, for CPUs and whatever transformers
    knows; `vllm`, for GPUs, where vLLM is installed (`make vllm` brings its build for CPUs)."""
    start_timeout_s: PositiveFloat = 900
    """Seconds to wait for the machines that the training workers ask for; then the run ends and says so."""
    max_concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Trials of a sweep that run at the same time, each on num_workers workers of its own; machines are asked for as
    they are needed. Without it: as many as there are GPUs for, or machines where there are none."""
    price_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """What a worker costs per hour, in the currency of train.max_cost: a report then tells what training cost."""

    @model_validator(mode="after")
    def _fewest_are_not_most(self) -> "Cluster":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers {self.min_workers} is above num_workers {self.num_workers}")
        return self


class Recipe(Section):
    """A recipe, resolved."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    """Lower-case letters, digits and hyphens: it names runs, tables and models."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 17
    """Of everything random."""
    dataset: Dataset
    audit: Audit = Audit()
    split: Split = Split()
    models: Annotated[tuple[BaseModelChoice, ...], Field(min_length=1, max_length=1)]
    """The base model to fine-tune: one."""
    train: Train = Train()
    sweep: Sweep | None = None
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    experiment: Experiment | None = None
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _batch_divides(self) -> "Recipe":
        per_step = self.train.sequences_per_pass * self.cluster.num_workers
        if self.train.global_batch_size % per_step:
            raise ValueError(
                f"train.global_batch_size {self.train.global_batch_size} is not divisible by "
                f"per_device_train_batch_size x cluster.num_workers = {per_step}"
            )
        return self

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> "Recipe":
        for section, max_cost in (("train", self.train.max_cost), ("sweep", self.sweep and self.sweep.max_cost)):
            if max_cost is not None and self.cluster.price_per_hour is None:
                raise ValueError(f"{section}.max_cost needs cluster.price_per_hour")
        return self

    @model_validator(mode="after")
    def _fold_is_there(self) -> "Recipe":
        fold, folds = self.train.fold, self.split.folds
        if fold is not None and fold >= (folds or 0):
            raise ValueError(
                f"train.fold {fold} is not there: split.folds {folds} has 0 to {folds - 1}"
                if folds
                else "train.fold needs split.folds"
            )
        return self

    @model_validator(mode="after")
    def _pairs_for_preferences(self) -> "Recipe":
        if self.train.learns_from_pairs and self.dataset.format not in ("auto", "preference"):
            raise ValueError(
                f"train.objective {self.train.objective} learns from preference pairs, and dataset.format is "
                f"{self.dataset.format}"
            )
        return self

    @model_validator(mode="after")
    def _edits_are_seen(self) -> "Recipe":
        measures = (self.experiment.primary, *self.experiment.guardrails) if self.experiment else ()
        if not self.serve.log_prompts and any(measure.metric == "feedback.edited" for measure in measures):
            raise ValueError(
                "experiment: feedback.edited needs answers to compare with: set serve.log_prompts to masked"
            )
        return self

    @model_validator(mode="after")
    def _space_fits_train(self) -> "Recipe":
        for values in edges((self.sweep and self.sweep.space) or {}):
            try:
                # A value that the section refuses would fail a trial hours later.
                Train.model_validate(self.train.model_dump() | values)
            except ValidationError as error:
                reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                key, value = list(values.items())[-1]
                raise ValueError(f"sweep.space.{key}: {value!r} does not fit train: {reason}") from None
        return self

    @property
    def base(self) -> BaseModelChoice:
        """The base model to fine-tune."""
        return self.models[0]

    @property
    def compared_tokenizers(self) -> tuple[BaseModelChoice, ...]:
        """Those whose lengths an audit shows beside the base's."""
        # A folder's absolute name may hold what nobody may write into a recipe.
        return tuple(BaseModelChoice.model_construct(base=name) for name in self.audit.tokenizers)
