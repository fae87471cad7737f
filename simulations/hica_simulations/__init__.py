"""Many sites on one machine: the same ServerApp and ClientApps, in one process."""
