"""HTTP in, calls on `core/`, HTTP out. No decisions here."""
