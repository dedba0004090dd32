"""HTTP and the command line in, calls on `core/` and tables, answers out. Nothing of a run is decided here."""
