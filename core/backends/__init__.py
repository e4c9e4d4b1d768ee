"""What a worker runs for one feature; each backend is a process of its own."""
