"""The verbs that are not stages, by what they are about."""
