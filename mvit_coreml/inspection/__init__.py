"""What a package holds, and what differs between two."""
