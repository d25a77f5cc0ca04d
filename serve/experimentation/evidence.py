"""What a look showed, as it is kept: reading it, that of earlier versions too."""

from typing import Any


def counted(evidence: dict[str, Any]) -> dict[str, int]:
    """Arm -> units that a look was about: of few planned ones not all that had come by then."""
    found: dict[str, int] = evidence.get("counted", evidence["exposures"])
    return found


def how_counted(about: dict[str, Any], seen: dict[str, Any]) -> str:
    """What is not usual about the primary metric's figure, for people; "" where all is."""
    primary = about["primary"]
    if about["settle_hours"] is not None:
        late = f"; {seen['late']:,} values were known too late and do not count" if seen.get("late") else ""
        return (
            f"{primary}: the first {about['planned']} units count, each {about['settle_hours']:g} hours after it has "
            "met its arm, with what is known by then of what it did in them; the safe test decides, and may show a "
            f"difference while the exact interval still holds zero{late}"
        )
    # Looks of earlier versions know of no adjustment.
    if seen.get("explained") is not None:
        return (
            f"{primary}: its difference is adjusted for the {about['before_days']:g} days before the start, which "
            f"explain {seen['explained']:.0%} of the variance between units (CUPED): it is not that of the two means"
        )
    return ""
