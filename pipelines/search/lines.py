"""Events of a sweep's history as lines for people. Pure."""

from pipelines.search.history import Event
from pipelines.search.reading import told


def line(event: Event) -> str:
    """What happened, and by whom."""
    content = event.content
    by = f", by {event.by}" if event.by else ""
    match event.kind:
        case "opened":
            rungs = ", ".join(str(step) for step in content.get("rungs", ()))
            text = f"opened: {content.get('num_samples', '?')} trials over {content.get('base', '?')}, rungs {rungs}"
        case "proposed":
            parent = f" of {content['parent']}" if content.get("parent") else ""
            seed = f", seed {content['seed']}" if content.get("seed") is not None else ""
            text = f"proposed ({content['origin']}{parent}{seed}): {told(content['values'])}"
        case "rung":
            where = f", {content['seconds']:.1f} s on {content['place']}" if content["seconds"] else ""
            text = f"step {content['step']}: validation loss {content['loss']:.4f}{where}"
        case "turn":
            text = f"a turn of {content['seconds']:.1f} s on {content['place']}"
        case "retried":
            text = f"taken up again: {content['cause']}"
        case "ended":
            text = f"{content['how']}: {content['because']}"
        case "asked":
            rest = {name: value for name, value in content.items() if name not in ("action", "values")}
            shown = told(content["values"]) if content.get("values") else told(rest) if rest else ""
            text = f"asked to {content['action']}{f': {shown}' if shown else ''}"
        case "answered":
            text = f"request {content['request']} {'not done: ' + content['problem'] if content['problem'] else 'done'}"
        case "extended":
            text = f"extended: {told({key: value for key, value in content.items()})}"
        case "closed":
            text = f"closed: {content['because']}"
        case _:
            text = event.kind
    return f"{text}{by}"
