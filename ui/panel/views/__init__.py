"""The pages, each a script that Streamlit runs."""
