"""The embedded corpus of few-shot tasks: how it was made, and how its settings were found."""
