"""The Streamlit panel."""
