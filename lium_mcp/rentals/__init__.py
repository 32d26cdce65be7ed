"""Renting a pod exactly once: what happens around ``POST .../rent``."""
