"""What Juinie's services agree on: words, bytes, tables and how a process runs."""
