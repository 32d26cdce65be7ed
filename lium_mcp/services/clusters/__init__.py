"""Clusters: planned, rented and removed as one."""
