"""What an adaptation is made of: its name in the store, and what it does to its questions."""
