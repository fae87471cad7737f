"""What a coordinator runs: the ServerApp, its rounds and its report."""
