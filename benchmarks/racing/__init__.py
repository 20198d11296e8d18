"""Ways to spend inner loops on choosing an edit, replayed on a log of SEAL's rollout."""
