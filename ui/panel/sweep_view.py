"""One sweep: its state and figures, the table of its trials, what people asked, and its charts."""

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from pipelines.fingerprint import fingerprint, short
from pipelines.search.reading import told, word
from ui.panel import frame, report_view, sweep_charts, sweeps_backend
from ui.panel.markup import age, duration, html, joined, number, visible
from ui.panel.sweeps_backend import SweepView

SILENT_S = 180
"""A sweep that goes on and writes nothing for this long may have lost its driver."""
REQUESTS_SHOWN = 6
LOOKS = {
    "running": "running",
    "waiting": "not_yet",
    "paused": "waived",
    "finished": "open",
    "stopped": "info",
    "failed": "closed",
}


def head(view: SweepView) -> None:
    """Its name, state and figures."""
    standing = view.standing
    plan, closed = standing.plan, standing.closed
    looks, state = ("open", "over") if closed else ("running", "goes on")
    st.html(
        html(
            '<div class="line"><b class="clip" style="max-width:38rem" title="{name}">{name}</b>'
            '<span class="verdict {looks}">{state}</span><span class="quiet">{search}, {scheduler}, over {base}</span>'
            '<span class="quiet">opened {opened}, last heard of {last}</span></div>',
            name=view.sweep,
            looks=looks,
            state=state,
            search=plan.get("search", "?"),
            scheduler=plan.get("scheduler", "?"),
            base=str(plan.get("base", "?"))[:200],
            opened=age(view.opened_at),
            last=age(view.last_at),
        )
    )
    if closed:
        st.html(html('<div><span class="quiet">Why it is over:</span> {because}</div>', because=closed))
    elif (datetime.now(UTC) - view.last_at).total_seconds() > SILENT_S:
        text = "No news for {time}. When its process has ended, <code>sluice sweep RECIPE</code> goes on from there."
        silent = (datetime.now(UTC) - view.last_at).total_seconds()
        frame.say(html(text, time=duration(silent)), "warning")
    st.html(report_view.facts(figures(view), large=True))


def figures(view: SweepView) -> dict[str, str]:
    """What stands on top: trials, what was spent of what may be, the leader and what it gained."""
    spent, shown = view.spent, {}
    planned = view.standing.plan.get("num_samples")
    states = ", ".join(f"{count} {state}" for state, count in view.states.items())
    shown["trials"] = f"{number(len(view.rows))}{f' of {planned}' if planned and planned > len(view.rows) else ''}"
    shown["of them"] = states or "none yet"
    took = duration(spent.hours * 3600)
    shown["wall-clock"] = f"{took} of {spent.max_hours:g} h" if spent.max_hours is not None else took
    if spent.cost is not None:
        cost = f"{spent.cost:.2f}"
        shown["cost"] = f"{cost} of {spent.max_cost:g}" if spent.max_cost is not None else cost
    if view.leader and view.leader.loss is not None:
        shown["leader"] = f"{view.leader.trial}: {view.leader.loss:.4f} at step {view.leader.step}"
    if view.interval:
        shown["winner against the recipe's own"] = _gained(view.interval)
    elif view.gain and view.gain.trial != _default(view):
        shown["leader against the recipe's own"] = f"{view.gain.difference:+.4f} at step {view.gain.step}"
    return shown


def _gained(interval: dict[str, Any]) -> str:
    ends = ""
    if interval.get("low") is not None and interval.get("high") is not None:
        ends = f" [{interval['low']:+.4f}, {interval['high']:+.4f}]"
    return f"{interval['difference']:+.4f}{ends} at step {interval['step']}"


def _default(view: SweepView) -> str:
    return next((row.trial for row in view.rows if row.origin == "default"), "")


def table(view: SweepView, chosen: str) -> None:
    """The trials; the one that is picked goes into the address."""
    if not view.rows:
        st.html('<span class="quiet">No trial was drawn yet.</span>')
        return
    names = [row.trial for row in view.rows]
    rows = [names.index(chosen)] if chosen in names else []
    space = view.standing.plan.get("space", {})
    event = st.dataframe(
        [_cells(view, place) for place in range(len(names))],
        # Rows are chosen by position: when the list or the address changes, so does the widget.
        key=f"trials-{short(fingerprint([view.sweep, *names], chosen))}",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows}},
        height=37 + 32 * min(len(names), 10),
        row_height=32,
        hide_index=True,
        placeholder="",
        column_config={
            "loss": st.column_config.NumberColumn(format="%.4f"),
            "cost": st.column_config.NumberColumn(format="%.2f"),
            "took": st.column_config.TextColumn(width="small"),
            **{
                key: st.column_config.NumberColumn(format="%.2e" if "loguniform" in domain else None)
                for key, domain in space.items()
                if "choice" not in domain
            },
        },
    )
    picked = [names[row] for row in event["selection"]["rows"] if row < len(names)]
    if picked != ([chosen] if rows else []):
        choose(view, picked[0] if picked else None)
        st.rerun()


def choose(view: SweepView, trial: str | None) -> None:
    """Put the trial into the address."""
    st.query_params.from_dict(frame.address(recipe=view.recipe_name, sweep=view.sweep, trial=trial))


def _cells(view: SweepView, place: int) -> dict[str, Any]:
    row = view.rows[place]
    space = view.standing.plan.get("space", {})
    values = view.values[row.trial]
    leads = view.leader is not None and row.trial == view.leader.trial
    cells: dict[str, Any] = {
        "trial": f"{visible(row.trial)}{' ★' if leads else ''}",
        "state": row.state,
        "step": row.step,
        "loss": row.loss,
    }
    for key in space:
        value = values[key]
        text = "choice" in space[key] and value is not None
        cells[key] = visible(word(value)) if text else value
    others = {key: value for key, value in row.values.items() if key not in space}
    if any(key not in space for each in view.rows for key in each.values):
        cells["other values"] = visible(told(others)) if others else ""
    seed = f", seed {row.seed}" if row.seed is not None else ""
    cells["from"] = visible(f"{row.origin} of {row.parent}" if row.parent else row.origin) + seed
    cells["took"] = duration(row.seconds)
    if row.cost is not None:
        cells["cost"] = row.cost
    cells["why"] = visible(row.because)
    return cells


def requests(view: SweepView) -> None:
    """What people asked, the newest first, and what the driver answered."""
    if not view.requests:
        return
    frame.heading("Asked", "and what the driver answered")
    lines = []
    for request in view.requests[:REQUESTS_SHOWN]:
        looks = "not_yet" if request.answer is None else "closed" if request.answer else "open"
        lines.append(
            html(
                '<div class="line"><span class="verdict {looks}">{by}</span><span>{sentence}</span>'
                '<span class="quiet">{age}</span></div>',
                looks=looks,
                by=request.event.by,
                sentence=request.sentence,
                age=age(request.event.at),
            )
        )
    if len(view.requests) > REQUESTS_SHOWN:
        more = number(len(view.requests) - REQUESTS_SHOWN)
        text = '<span class="quiet">{more} earlier: <span class="mono">sluice trials history RECIPE</span></span>'
        lines.append(html(text, more=more))
    st.html(joined(lines))


def charts(view: SweepView, chosen: str) -> None:
    """Curves, the leader, what mattered, parallel coordinates, slices, and what ran where."""
    if not view.best:
        st.html('<span class="quiet">No validation yet: curves come with the first.</span>')
        return
    frame.heading("How they learn")
    left, right = st.columns([1.6, 1], gap="medium")
    with left:
        _draw(sweep_charts.curves(view, chosen), f"curves-{view.sweep}", "Validation loss of every trial")
    with right:
        _draw(sweep_charts.best(view), f"best-{view.sweep}", "Loss of the leader over time")
    compared = view.compared
    if compared.axes:
        about = f"{len(compared.trials)} trials at step {compared.step}, the same for all"
        left, beside = st.columns([1.6, 1], gap="medium")
        with left:
            frame.heading("Values and losses", about)
            _draw(sweep_charts.parallel(view), f"parallel-{view.sweep}", "Parallel coordinates of the trials")
        frame.heading("Loss over each key", about)
        for start in range(0, len(compared.axes), 3):
            for column, axis in zip(st.columns(3, gap="medium"), compared.axes[start : start + 3], strict=False):
                with column:
                    _draw(sweep_charts.sliced(view, axis), f"slice-{view.sweep}-{axis.key}", f"Loss over {axis.key}")
    if view.spans:
        frame.heading("What ran where")
        _draw(sweep_charts.timeline(view), f"timeline-{view.sweep}", "Turns of the trials on each worker")
    if compared.axes:
        # Last, for its libraries take seconds to load: all else is on the page by then.
        with beside:
            _importance(view)


def _importance(view: SweepView) -> None:
    frame.heading("What mattered", "share of the losses' variance")
    known = sweeps_backend.importance(view)
    frame.notice(known)
    found = known.value
    if found is None:
        return
    if found.because:
        st.html(html('<span class="quiet">Not yet to be told: {because}</span>', because=found.because))
        return
    rows = [
        html(
            '<tr><td class="label">{key}</td><td><div class="share"><i style="width:{width:.1f}%"></i></div></td>'
            '<td class="n">{share}</td></tr>',
            key=key,
            width=100 * share,
            share=f"{share:.0%}",
        )
        for key, share in found.shares.items()
    ]
    notes = "; ".join((f"fANOVA over {found.trials} trials at step {found.step}", *found.notes))
    text = '<table class="bars importance">{rows}</table><span class="quiet">{notes}.</span>'
    st.html(html(text, rows=joined(rows), notes=notes))


def _draw(figure: Any, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=alt)


def state(name: str) -> Any:
    """A trial's state as a shape and a word."""
    return html('<span class="verdict {looks}">{state}</span>', looks=LOOKS.get(name, "none"), state=name)
