"""What the benchmarks of spawners share: clusters, hubs of each contender, a client, and the form of a result."""
