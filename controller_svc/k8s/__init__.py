"""The world of a cluster: custom resources, Jobs, events, the lease, KServe."""
