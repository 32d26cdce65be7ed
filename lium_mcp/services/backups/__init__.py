"""Backups and restores: taken, waited for, told."""
