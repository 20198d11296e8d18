"""What vLLM's workers can do more: forget. vLLM makes it a base class of its own worker."""

from __future__ import annotations

from typing import Any


class ForgetfulWorker:
    """Mixed into a worker, whose model runner holds the keys and values."""

    model_runner: Any

    def forget_keys_and_values(self) -> None:
        """Zero the whole cache.

        A page is given to the next text as it is. A place that is masked out has weight 0 in the
        attention, and 0 x NaN is NaN: what one diverged adapter has left there spoils every text
        after it.
        """
        for cache in self.model_runner.kv_caches:
            cache.zero_()
