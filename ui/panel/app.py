"""The panel: navigation, looks and the choice of a recipe. Start it with `sluice panel`."""

from pathlib import Path

import streamlit as st

from ui.panel import frame

st.set_page_config(page_title="Sluice", layout="wide", initial_sidebar_state="collapsed")
st.html(Path(__file__).parent / "panel.css")
# Not in a folder called `pages`: Streamlit would serve its files by themselves until this line has run once.
page = st.navigation(
    [
        st.Page("views/overview.py", title="Overview", default=True),
        st.Page("views/data.py", title="Data", url_path="data"),
        st.Page("views/launch.py", title="Launch", url_path="launch"),
        st.Page("views/runs.py", title="Runs", url_path="runs"),
        st.Page("views/sweeps.py", title="Sweeps", url_path="sweeps"),
        st.Page("views/experiments.py", title="Experiments", url_path="experiments"),
        st.Page("views/production.py", title="Production", url_path="production"),
        st.Page("views/jobs.py", title="Jobs", url_path="jobs"),
        st.Page("views/try_it.py", title="Try it", url_path="try"),
    ],
    position="hidden",
)
frame.header(page.title)
page.run()
