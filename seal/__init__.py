"""SEAL on Kubernetes.

A language model that writes its own finetuning data, as a service (arXiv 2506.10943).
"""
