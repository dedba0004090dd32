"""The decisions of the stream gateway: what a watcher gets, and when. No I/O of its own, no framework."""
