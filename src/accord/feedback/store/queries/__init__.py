"""All queries of the store: functions whose first argument is a session, called through `Store.run` or `Store.read`."""
