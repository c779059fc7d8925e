"""The parts of a report: reading a run folder, drawing charts, and the sections they stand in."""
