"""Pods: `models.py` holds what the API says about them, `calls.py` what it is asked."""
