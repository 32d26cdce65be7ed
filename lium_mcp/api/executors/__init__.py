"""Nodes, which the API calls executors: `models.py` holds what the API says about them, `calls.py` what it is asked."""
