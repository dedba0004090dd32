"""Contract suites: classes of tests that a fake and the real thing both pass. Subclass one and give its fixture."""
