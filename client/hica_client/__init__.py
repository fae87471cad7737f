"""What a hospital runs: the ClientApp and its site configuration."""
