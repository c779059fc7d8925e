"""Feedback from people and models: `store` keeps it. No torch anywhere below, so collecting runs on a laptop."""
