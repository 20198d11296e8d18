"""The front door of a cluster: adaptations as objects of the API server, for many replicas."""
