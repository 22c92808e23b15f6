"""What sandboxes use and what happened to them: sampled from the guests, kept on the host."""
