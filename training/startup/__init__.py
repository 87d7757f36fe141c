"""What every command begins with: its options, the backend, the machine."""
