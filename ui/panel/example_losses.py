"""A training's best and worst validation examples, and what it says of overfitting."""

from typing import Any

import streamlit as st

from ui.panel import frame
from ui.panel.markup import html, visible


def show(figures: dict[str, Any]) -> None:
    """The tables of a train report's figures; nothing for a run without them."""
    _overfit(figures.get("overfit"))
    shown = figures.get("examples_by_loss") or {}
    rows = [
        {
            "": kind,
            "example": visible(entry["id"]),
            "loss": entry["loss"],
            "base": entry["base_loss"],
            "tokens": entry["tokens"],
        }
        for kind in ("worst", "best")
        for entry in shown.get(kind, ())
    ]
    if not rows:
        return
    frame.heading("Validation examples", "highest and lowest loss with the kept weights, nats per token")
    st.dataframe(
        rows,
        key="example-losses",
        hide_index=True,
        height=min(38 + 30 * len(rows), 330),
        row_height=30,
        column_config={
            "loss": st.column_config.NumberColumn(format="%.3f"),
            "base": st.column_config.NumberColumn(format="%.3f", help="Loss of the untrained base"),
        },
    )


def _overfit(seen: dict[str, Any] | None) -> None:
    if not seen:
        return
    text = html(
        "Overfitting since {since}: by step {seen} the validation loss rose by {rise} while the training loss fell "
        "from {then} to {now}.",
        since=f"step {seen['since_step']}" if seen["since_step"] else "the start",
        seen=seen["seen_at_step"],
        rise=f"{seen['difference']:+.3f} [{seen['low']:+.3f}, {seen['high']:+.3f}]",
        then=f"{seen['train_loss_then']:.3f}",
        now=f"{seen['train_loss']:.3f}",
    )
    frame.say(text, "warning")
