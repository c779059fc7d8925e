"""Measurements that are repeated by a command: what the methods do on one task, what a step costs."""
