"""What a node consists of and how fast its parts talk: topology, memory bandwidth, all-reduce."""
