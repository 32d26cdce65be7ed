"""Callers over HTTP that log in instead of sending a key: at Lium, or at the deployment's own authorization server."""
