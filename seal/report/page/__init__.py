"""The page of a report: one HTML file made from its numbers."""
