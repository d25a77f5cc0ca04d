"""Hosting: the gateway, sticky assignment, the client."""
