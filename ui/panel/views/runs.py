"""Runs: trainings, sweeps and their trials; the one in the address with its live curves, or several compared."""

import streamlit as st

from pipelines.fingerprint import fingerprint, short
from pipelines.tracking.runs import RunSummary
from ui.panel import backend, comparison_view, frame, run_view
from ui.panel.backend import RunView
from ui.panel.charts import LETTERS
from ui.panel.last_known import Known
from ui.panel.markup import age, duration, number, visible

LIVE_S, LIST_S = 2, 10


def runs() -> None:
    """The page."""
    recipe_name = frame.in_address("recipe")
    _list(recipe_name)
    run_id, others = frame.in_address("run"), others_in_address()
    if run_id and others:
        live = _any_moves([backend.run(each) for each in (run_id, *others)])
        st.fragment(_comparison, run_every=LIVE_S if live else None)([run_id, *others], live)
    elif run_id:
        found = backend.run(run_id)
        live = found.value is not None and run_view.moves(found.value)
        st.fragment(_run, run_every=LIVE_S if live or found.problem else None)(run_id, live)


@st.fragment(run_every=LIST_S)
def _list(recipe_name: str | None) -> None:
    found = backend.runs(recipe_name)
    frame.notice(found)
    listed = found.value
    if listed is None:
        return
    if not listed:
        if recipe_name is None:
            frame.empty_workspace()
        else:
            st.html('<span class="quiet">No run yet: <span class="mono">sluice train RECIPE</span> starts one.</span>')
            st.page_link(frame.PAGES["Launch"], label="Launch one", query_params=frame.address(recipe=recipe_name))
        return
    running = sum(run.status == "RUNNING" for run in listed)
    note = f"{number(len(listed))}, {running} running" if running else number(len(listed))
    frame.heading("Runs", f"{note}; read {found.read_at:%H:%M:%S} UTC" if found.read_at else note)
    _table(listed)
    _compare_choice(listed)


def _table(listed: list[RunSummary]) -> None:
    chosen = frame.in_address("run")
    ids = [run.run_id for run in listed]
    rows = [ids.index(chosen)] if chosen in ids else []
    event = st.dataframe(
        [_row(run) for run in listed],
        # Rows are chosen by position: when the list or the address changes, so does the widget.
        key=f"runs-{short(fingerprint(ids, chosen))}",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows}},
        height=35 + 32 * min(len(listed), 8),
        row_height=32,
        hide_index=True,
        placeholder="",
        column_config={
            "name": st.column_config.TextColumn("name", width="medium"),
            "started": st.column_config.DatetimeColumn("started", format="distance", width="small"),
            "took": st.column_config.TextColumn("took", width="small"),
            "validation loss": st.column_config.NumberColumn(format="%.4f"),
            "train loss": st.column_config.NumberColumn(format="%.4f"),
            "tokens/s": st.column_config.NumberColumn(format="%.0f"),
            "learning rate": st.column_config.NumberColumn(format="%.2e"),
        },
    )
    picked = [ids[row] for row in event["selection"]["rows"] if row < len(ids)]
    if picked != ([chosen] if rows else []):
        if picked:
            st.query_params["run"] = picked[0]
        else:
            st.query_params.pop("run", None)
        st.rerun()


def _row(run: RunSummary) -> dict[str, object]:
    return {
        "name": visible(run.name),
        "stage": run.stage,
        "state": run_view.word(run),
        "started": run.started_at,
        "took": duration(run_view.seconds(run)),
        "validation loss": run.metrics.get("validation/loss"),
        "train loss": run.metrics.get("train/loss"),
        "tokens/s": run.metrics.get("train/tokens_per_second"),
        "learning rate": _number(run.params.get("learning_rate")),
    }


def _number(text: str | None) -> float | None:
    """A tracked parameter as the number that it is; parameters are text, and `None` may be one."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _compare_choice(listed: list[RunSummary]) -> None:
    """The runs that the chosen one is compared with."""
    chosen, others = frame.in_address("run"), others_in_address()
    labels = {run.run_id: f"{run.name}, {run_view.word(run)}, {age(run.started_at)}" for run in listed}
    # An id may come from an address of another recipe's page.
    options = [run_id for run_id in [*labels, *(each for each in others if each not in labels)] if run_id != chosen]
    if not chosen or not options:
        return
    picked = st.multiselect(
        "Compare with",
        options,
        others,
        format_func=lambda run_id: visible(labels.get(run_id, run_id)),
        # When the address changes (back, a link), the widget follows it.
        key=f"compare-{short(fingerprint(chosen, others))}",
        max_selections=len(LETTERS) - 1,
        placeholder="Compare with other runs",
        label_visibility="collapsed",
        select_all=False,
        width=640,
    )
    if picked != others:
        parameters = frame.address(recipe=frame.in_address("recipe"), run=chosen)
        parameters |= {"with": ",".join(picked)} if picked else {}
        st.query_params.from_dict(parameters)
        st.rerun()


def others_in_address() -> list[str]:
    """The runs that the chosen one is compared with, each once."""
    named = (frame.in_address("with") or "").split(",")
    return [each for each in dict.fromkeys(named) if each and each != frame.in_address("run")][: len(LETTERS) - 1]


def _run(run_id: str, live: bool) -> None:
    found = backend.run(run_id)
    frame.notice(found)
    view = found.value
    if view is None:
        if not found.problem:
            frame.not_found("run", run_id)
        return
    if live != run_view.moves(view):
        # It ended (or was resumed): the page follows at the other pace.
        st.rerun()
    run_view.show(view)


def _any_moves(found: list[Known[RunView | None]]) -> bool:
    return any(known.problem or (known.value and run_view.moves(known.value)) for known in found)


def _comparison(run_ids: list[str], live: bool) -> None:
    found = [backend.run(run_id) for run_id in run_ids]
    if live != _any_moves(found):
        # All of them have ended: nothing grows any more.
        st.rerun()
    for known in found:
        if known.problem:
            frame.notice(known)
            break
    for run_id, known in zip(run_ids, found, strict=True):
        if known.value is None and not known.problem:
            frame.not_found("run", run_id)
    views = [known.value for known in found if known.value]
    if len(views) > 1:
        comparison_view.show(views)


runs()
