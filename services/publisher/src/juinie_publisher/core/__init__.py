"""What the publisher decides: what is sent when, what is deleted, when it is tried again."""
