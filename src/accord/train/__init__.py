"""The training jobs: one readable loop each, and the configuration each of them takes.

Importing this package does not import torch; the loops (`sft`, `reward`, `preference`, `policy`) do.
"""
