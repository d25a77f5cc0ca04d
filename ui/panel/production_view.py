"""What is in production: a line each recipe, how it answers, the deployment log, a deployment with its rollback."""

from collections.abc import Mapping
from typing import Any

import streamlit as st
from markupsafe import Markup

from pipelines.fingerprint import short
from serve.arm_figures import ArmFigures
from ui.panel import frame, gateway, production_backend
from ui.panel.last_known import Known
from ui.panel.markup import age, duration, html, joined, number, share
from ui.panel.production_backend import Deployment, InForce

SAID = "rollback-said"
"""What came of the last click, until the next."""
ACTIONS = {"promote": "open", "rollback": "waived"}


def in_force(one: InForce) -> None:
    """What answers the users of a recipe."""
    deployment = one.deployment
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        frame.go(
            deployment.recipe_name,
            f"to-production-{deployment.recipe_name}",
            recipe=deployment.recipe_name,
        )
        st.html(
            html(
                '<div class="line"><span class="verdict open">version {version}</span>{traffic}'
                '<span class="quiet">since {age}, deployment {number} by '
                '<span class="clip who" title="{by}">{by}</span></span></div>',
                version=deployment.version,
                traffic=_traffic(deployment, one),
                age=age(deployment.at),
                number=deployment.number,
                by=deployment.by,
            )
        )


def _traffic(deployment: Deployment, one: InForce | None = None) -> Markup:
    running = one.running if one else None
    if running is not None:
        told = "<span>experiment {id} shares out {covered} of the users{paused}; the others meet {control}</span>"
        paused = ", and lets nobody new in" if running.paused else ""
        covered = share(running.coverage)
        return html(told, id=running.id, covered=covered, paused=paused, control=running.control)
    if not deployment.traffic:
        return html('<span class="quiet">traffic as the recipe shares it out</span>')
    whose = "decided by an experiment" if deployment.decided else "the recipe's weights"
    return html('<span>{traffic} <span class="quiet">{whose}</span></span>', traffic=deployment.traffic, whose=whose)


def line(deployment: Deployment, *, now: bool) -> None:
    """A row of the log."""
    name = str(deployment.number)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        frame.go(f"Deployment {name}", f"to-deployment-{name}", recipe=deployment.recipe_name, deployment=name)
        st.html(
            html(
                '<div class="line">{action}<span>version {version}</span>{traffic}<span class="quiet">{at} UTC by '
                '<span class="clip who" title="{by}">{by}</span></span>{now}</div>'
                '<div class="quiet break">{evidence}</div>',
                action=_action(deployment),
                version=deployment.version,
                traffic=_traffic(deployment),
                at=f"{deployment.at:%Y-%m-%d %H:%M}",
                by=deployment.by,
                now=html('<span class="verdict open">in production</span>') if now else Markup(),
                evidence=_evidence(deployment),
            )
        )


def _action(deployment: Deployment) -> Markup:
    looks = ACTIONS.get(deployment.action, "none")
    return html('<span class="verdict {looks}">{word}</span>', looks=looks, word=deployment.action)


def _evidence(deployment: Deployment) -> str:
    told = []
    if deployment.restores is not None:
        told.append(f"restores deployment {deployment.restores}")
    if deployment.experiment is not None:
        told.append(f"experiment {deployment.experiment}")
    elif deployment.report and deployment.restores is None:
        told.append(f"report {short(deployment.report)}")
    because = deployment.because if len(deployment.because) <= 160 else f"{deployment.because[:159]}…"
    return ": ".join([", ".join(told), because]) if told and because else ", ".join(told) or because


def show(deployment: Deployment, *, now: Deployment) -> None:
    """One deployment: what it is, on what evidence, and the way back to it."""
    st.html(
        html(
            '<div class="line"><b>Deployment {number} of {recipe}</b>{action}{here}'
            '<span class="quiet">{at} UTC by {by}</span></div>',
            number=deployment.number,
            recipe=deployment.recipe_name,
            action=_action(deployment),
            here=html('<span class="verdict open">in production</span>') if deployment == now else Markup(),
            at=f"{deployment.at:%Y-%m-%d %H:%M:%S}",
            by=deployment.by,
        )
    )
    if deployment.because:
        st.html(html('<div><span class="quiet">Because:</span> {because}</div>', because=deployment.because))
    train = deployment.train
    shown = {
        "model": f"{deployment.model} version {deployment.version}",
        "traffic": deployment.traffic or "as the recipe shares it out",
        "restores": f"deployment {deployment.restores}" if deployment.restores is not None else "",
        "method": str(train.get("method") or ""),
        "base": str(train.get("base") or ""),
        "files": short(str(train.get("model_fingerprint") or "")),
    }
    told = [
        html('<span><span class="quiet">{name}</span> {value}</span>', name=name, value=value)
        for name, value in shown.items()
        if value
    ]
    st.html(html('<div class="line">{told}</div>', told=joined(told)))
    with st.container(horizontal=True, gap="medium"):
        if deployment.experiment is not None:
            parameters = frame.address(recipe=deployment.recipe_name, experiment=str(deployment.experiment))
            label = f"Experiment {deployment.experiment}"
            st.page_link(frame.PAGES["Experiments"], label=label, query_params=parameters)
        if deployment.report:
            parameters = frame.address(recipe=deployment.recipe_name, report=deployment.report)
            st.page_link(frame.PAGES["Overview"], label="Its evaluation's report", query_params=parameters)
    if deployment != now:
        _roll_back(deployment, now)


def _roll_back(deployment: Deployment, now: Deployment) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="rollback-by"):
        st.text_input("Your name", key="reviewer", max_chars=255, width=240)
        st.text_input("Because", key=_because(deployment), max_chars=1000, width="stretch")
    with st.popover("Roll back to this", icon=":material/undo:", key=f"roll-back-{deployment.number}"):
        text = (
            "<p><b>Every user</b> of {recipe} is answered by {this} instead of {present}. {when} An experiment of "
            "another version ends. The log keeps all of it.</p>"
        )
        when = (
            "The service follows within ten seconds."
            if deployment.version == now.version
            else "A service that runs follows once it has loaded its models; no answer is cut off."
        )
        st.html(html(text, recipe=deployment.recipe_name, this=_told(deployment), present=_told(now), when=when))
        st.button(
            f"Put deployment {deployment.number} back",
            type="primary",
            icon=":material/undo:",
            key="roll-back-now",
            on_click=_ask,
            args=(deployment,),
        )


def _told(deployment: Deployment) -> str:
    return f"version {deployment.version}" + (f" ({deployment.traffic})" if deployment.traffic else "")


def _because(deployment: Deployment) -> str:
    return f"rollback-because-{deployment.number}"


def _ask(deployment: Deployment) -> None:
    by, because = (str(st.session_state.get(key) or "") for key in ("reviewer", _because(deployment)))
    done = production_backend.roll_back(deployment, by, because)
    st.session_state[SAID] = done
    if done.value is not None:
        # What is in force now is what one wants to see.
        st.query_params.from_dict(frame.address(recipe=deployment.recipe_name))


def said() -> None:
    """What came of the last rollback."""
    done: Known[int] | None = st.session_state.pop(SAID, None)
    if done is None:
        return
    if done.value is not None:
        frame.say(html("<b>Done.</b> Deployment {number} is in production.", number=done.value), "open")
    frame.notice(Known(None, None, done.problem))


def answers(arms: list[ArmFigures]) -> None:
    """A row each arm: how many, how fast, what went wrong, what people said."""
    head = Markup(
        '<tr><th>arm</th><th class="n">requests</th><th class="n">failed</th><th class="n">clients left</th>'
        '<th class="n">first token, p50 and p95</th><th class="n">whole answer, p50 and p95</th>'
        '<th class="n">tokens/s</th><th>people said</th></tr>'
    )
    rows = [
        html(
            '<tr><td>{arm}</td><td class="n">{requests}</td><td class="n">{failed}</td><td class="n">{left}</td>'
            '<td class="n">{first}</td><td class="n">{whole}</td><td class="n">{rate}</td><td>{opinions}</td></tr>',
            arm=one.arm,
            requests=number(one.requests),
            failed=_share_of(one.failed, one.requests),
            left=_share_of(one.left, one.requests),
            first=_times(one.first_token_ms),
            whole=_times(one.total_ms),
            rate="" if one.tokens_per_second is None else f"{one.tokens_per_second:.1f}",
            opinions=_opinions(one),
        )
        for one in arms
    ]
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(rows)))


def _share_of(count: int, requests: int) -> str:
    return f"{number(count)} ({share(count / requests)})" if count else "0"


def _times(milliseconds: tuple[float, float] | None) -> str:
    return ", ".join(f"{one:.0f} ms" if one < 1000 else duration(one / 1000) for one in milliseconds or ())


def _opinions(one: ArmFigures) -> str:
    told = [f"{kind.replace('_', ' ')} {number(count)}" for kind, count in sorted(one.opinions.items())]
    if one.edited is not None:
        told.append(f"corrections change {share(one.edited)} of an answer")
    return ", ".join(told)


def load_of(health: Mapping[str, Any]) -> str:
    """How much the engines have to do, in words: all of them together, or each arm's own."""
    if own := health.get("engines"):
        return "; ".join(f"{arm}: {_load(one)}" for arm, one in own.items())
    # That none of them is there is said before it.
    return _load({**health, "replicas": health.get("replicas") or 1})


def _load(engine: Mapping[str, Any]) -> str:
    if engine.get("away"):
        return "away"
    if not engine["replicas"]:
        return f"wakes, {number(engine['waiting'])} waiting" if engine["waiting"] else "asleep"
    told = [f"{number(engine[name])} {name}" for name in ("running", "waiting") if name in engine]
    if engine["replicas"] > 1:
        told.insert(0, f"{number(engine['replicas'])} engines")
    return ", ".join(told)


def service(recipe_name: str) -> None:
    """The service that is in reach, and how much it has to do."""
    found = gateway.health()
    frame.heading("Service", gateway.address())
    if found.problem:
        text = '<span class="quiet">None answers. {message} {remedy}</span>'
        st.html(html(text, message=found.problem.message, remedy=found.problem.remedy))
        return
    health = found.value or {}
    told = "" if health.get("recipe") == recipe_name else f", not {recipe_name}"
    told_by = {
        "asleep": "asleep: the next request wakes an engine",
        "waking": "an engine wakes",
        "degraded": "an arm does not answer",
    }
    state = told_by.get(health.get("status", ""))
    coming = health.get("trouble") or (health.get("loading") and f"version {health['loading']} is being loaded")
    st.html(
        html(
            '<div class="line"><span class="verdict {looks}">{state}</span><span>{recipe}{told}</span>'
            '<span class="nums">{load}</span>{newer}</div>',
            looks="waived" if state else "open",
            state=state or "in service",
            recipe=health.get("recipe", ""),
            told=told,
            load=load_of(health),
            newer=html('<span class="verdict waived">{coming}</span>', coming=coming) if coming else Markup(),
        )
    )
