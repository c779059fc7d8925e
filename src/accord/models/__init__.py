"""Models: loading, tree attention, scoring of prompt trees, heads and adapters."""
