"""The way in: one connection, its calls that send, ask, look and operate, and handles of what was sent."""
