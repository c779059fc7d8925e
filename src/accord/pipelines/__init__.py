"""Stages wired together: settings, training jobs by name, recipes and the quickstart."""
