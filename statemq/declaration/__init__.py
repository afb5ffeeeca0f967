"""How a class body becomes a ``MachineSpec``: what it may say, what its handlers take and give, and what its data means."""
