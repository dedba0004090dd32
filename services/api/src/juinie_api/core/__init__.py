"""The api's decisions, one file per verb. I/O is handed in; no framework is named."""
