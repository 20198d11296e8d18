"""The numbers of a report: read from a run's records, estimated with their intervals."""
