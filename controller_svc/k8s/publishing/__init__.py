"""What becomes of an adapter that its gate let pass: a service of KServe that loads it."""
