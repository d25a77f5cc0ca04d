"""What an audit says: figures, findings, gates."""
