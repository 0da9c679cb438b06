"""What changes while the service runs, told once: in the log, at `/events` and on the page."""
