"""The recipe's sections about the examples: where they are, what they must satisfy, how they are divided."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.section import Fraction, ModelName, NonNegativeFloat, PositiveFloat, Section

Source = str | tuple[str, ...]


class Provenance(Section):
    """Who made the examples, for columns that the data lacks; recorded as declared."""

    source: str | None = None
    """Where the examples come from."""
    collector: str | None = None
    """Who gathered them."""
    annotator: str | None = None
    """Who wrote or approved the answers; `model:NAME` for a machine, which never counts as a person."""


class Dataset(Section):
    """The examples to learn from."""

    source: Source
    """Files (glob), URIs (s3://, gs://) or package://NAME#READER; paths are relative to the recipe."""
    format: Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "preference"] = "auto"
    """How a row holds its conversation; `auto` decides by the columns. `preference`: prompt, chosen, rejected."""
    columns: dict[str, str] = Field(default={})
    """Sluice's name -> the data's name, where they differ, as in {prompt: question, completion: answer}."""
    group_by: str | None = None
    """Column whose equal values must stay on one side of the split: a customer, a document, a module."""
    label: str | None = None
    """Column with a category: its balance is shown, wrong ones are looked for, and the split keeps its shares, but not
    where `split.by_time` or `split.column` decides."""
    provenance: Provenance = Provenance()
    """Declared origin for what the columns do not say."""
    instruction: str = ""
    """Text put before every prompt (a blank line between)."""
    on_bad_row: Literal["quarantine", "raise"] = "quarantine"
    """A row or file that cannot be read: kept aside with its reason, or the stage fails."""
    max_examples: Annotated[int, Field(ge=1)] | None = None
    """Keep the examples with the smallest seeded hashes (whole groups while they fit), up to this many."""


class Anomalies(Section):
    """From which score an example is suspect.

    A robust z is a distance from the median in units of 1.4826 times the median absolute deviation: a few wild
    rows do not hide each other.
    """

    length: PositiveFloat | None = 4.0
    """Robust z of the logarithm of the answer's length, and of the answer's over the prompt's."""
    repetition: Fraction | None = 0.5
    """Share of an answer's characters in repeated lines and word sequences (answers of 20 words or more)."""
    gibberish: PositiveFloat | None = 8.0
    """Robust z of the surprise per character of an answer, out of fold, among answers of like length."""
    language: Fraction | None = 0.8
    """Certainty that an answer is in another language than most; None where several are meant to be there."""
    encoding: NonNegativeFloat | None = 0.0
    """Signs of damaged encoding in a hundred characters, above this."""
    refusal: bool = True
    """Answers that decline ("I'm sorry, but I cannot ...")."""
    boilerplate: Fraction | None = 0.05
    """An answer's opening or closing words that stand in more than this share of all answers."""
    mismatch: Fraction | None = 0.01
    """Share of rows, those whose answer fits their prompt least, that are shown; they close nothing."""
    loss: PositiveFloat | None = 5.0
    """Robust z of the out-of-fold loss per word of an answer among answers of like length."""
    max_share: Fraction = 0.1
    """Largest share of suspect rows (mismatch apart) with which `data.anomalies` is open."""


class Private(Section):
    """What happens to personal data and secrets."""

    action: Literal["mask", "drop", "allow"] | None = None
    """Replace each by its kind, leave the row out, or let it pass; undecided: found ones close `data.private`."""
    kinds: tuple[Literal["email", "phone", "card", "iban", "secret", "name"], ...] = (
        "email",
        "phone",
        "card",
        "iban",
        "secret",
    )
    """What is looked for; `name` needs Presidio (`pip install sluice[names]`)."""


class Semantic(Section):
    """Duplicates by meaning: mean-pooled hidden states of a model, compared by cosine. Slow without a GPU."""

    model: str | None = None
    """Hub name or local folder, fetched where it is not on this machine; without it the recipe's base model."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Cosine similarity from which two texts mean the same."""


class Audit(Section):
    """What the data must satisfy before anything else happens."""

    min_examples: Annotated[int, Field(ge=1)] = 1000
    """Unique examples annotated by people."""
    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Jaccard similarity of word shingles from which two examples are near-duplicates."""
    max_duplicate_share: Fraction = 0.3
    """Largest share of rows that repeat another row exactly or nearly."""
    semantic: Semantic | None = None
    """Look for duplicates by meaning too; they stay on one side of the split like the others."""
    context_sizes: Annotated[tuple[Annotated[int, Field(ge=16)], ...], Field(min_length=1)] = (512, 1024, 2048, 8192)
    """Context sizes (tokens) for which the share of too long examples is shown."""
    tokenizers: tuple[ModelName, ...] = ()
    """Further tokenizers (hub names, or folders relative to the recipe) by which lengths are shown beside the base's,
    as of other bases that are considered. Those that are not on this machine are named, and never fetched."""
    anomalies: Anomalies = Anomalies()
    """From which score an example is suspect."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds, by cluster, of every model that scores an example it has not learnt from."""
    max_label_noise: Fraction = 0.1
    """Largest estimated share of wrong labels (`dataset.label`) with which `data.label_noise` is open."""
    private: Private = Private()
    """Personal data and secrets."""


class Split(Section):
    """Shares of the three sides; clusters of near-duplicates and groups stay whole."""

    train: Fraction = 0.8
    """Share to learn from."""
    validation: Fraction = 0.1
    """Share that decides when to stop, and which trial wins."""
    test: Fraction = 0.1
    """Share for the final comparison, read by nothing else."""
    by_time: bool = False
    """The newest clusters (`created_at`) become test, those before them validation, whatever their labels; random
    where not."""
    column: str | None = None
    """Column that already says train, validation or test: it is verified, and `split.leakage` closes on leaks."""
    heal: bool = False
    """Where `column` leaks: hold out what leaks instead of refusing."""
    dedup: Literal["report", "keep_first", "keep_best"] = "report"
    """Near-duplicates: kept together on a side, or one of each cluster: the first, or the best (by a person, then
    the longest answer). Exact repeats are always kept once."""
    freeze_test: bool = False
    """What was once on the test side never returns to training, not even after --fresh or under another policy."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Folds of the training side, by cluster and group, for cross-validated training: train.fold names one."""
    min_validation: Annotated[int, Field(ge=1)] = 20
    """Fewest examples on the validation side with which `split.size` is open."""
    min_test: Annotated[int, Field(ge=1)] = 20
    """Fewest examples on the test side with which `split.size` is open."""
    containment: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Share of an example's 13-word sequences that stand in another one, from which they share a side."""
    shared_prompts: Annotated[int, Field(ge=1)] = 100
    """Rows with the same prompt, up to this many, share a side whatever their answers; a prompt of more rows is an
    instruction that ties nobody. 1: prompts tie nobody."""
    benchmarks: Source = ()
    """Sets that must not be in training (files as in dataset.source): what resembles them is held out of it."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:g}")
        if min(self.train, self.validation, self.test) == 0:
            raise ValueError("each of train, validation and test needs a share above 0")
        return self

    @model_validator(mode="after")
    def _one_way_to_divide(self) -> "Split":
        if self.column and self.by_time:
            raise ValueError("column and by_time exclude each other: either the data says the side, or the time does")
        if self.heal and not self.column:
            raise ValueError("heal concerns a split that the data brings: name its column")
        return self

    @property
    def shares(self) -> dict[str, Any]:
        """Side -> wanted share."""
        return {"train": self.train, "validation": self.validation, "test": self.test}
