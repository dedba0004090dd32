"""Load, faults, and a checker of what was promised: over HTTP only, against a deployment that somebody named."""
