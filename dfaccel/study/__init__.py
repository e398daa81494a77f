"""Studies of many flows: how much of their scatter is the data's, and how much the network's."""
