"""What a Redis and its workers give, measured beside the same Redis work done by bare hiredis in the same run."""
