"""The receipt of a run: its data model, its text table, and the analysis of step timing."""
