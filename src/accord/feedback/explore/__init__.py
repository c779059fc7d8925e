"""What people ask: chat logs as a map of clusters."""
