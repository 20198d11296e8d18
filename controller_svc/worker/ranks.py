"""How large the LoRAs become that a run asks its services for, and whether these hold them.

The trainer bounds what one training learns. What generator and evaluator are asked with is more:
with `improve.start: policy` every M-step puts its LoRA beside the last policy's, so that the policy
grows by `improve.lora.rank` each round, and where the policy is the student an inner loop's LoRA
lies on top of that. A server with a bound (vLLM has one) would refuse the last rounds, after all
the work of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller_svc.worker.clients import ServiceClients
from seal.errors import InvalidInput
from seal.remedies import engine_setting
from seal.rpc.convert import policy_message
from seal.settings import RunSpec, Spec


@dataclass(frozen=True)
class AskedLora:
    """The largest LoRA that a service will be asked with."""

    policy: int
    """Rank that it has of the policy; 0 without one."""
    on_top: int = 0
    """Rank that it has of an adapter, alone or on the policy."""
    field: str = ""
    """Whose rank that is."""

    @property
    def rank(self) -> int:
        """Of both together."""
        return self.policy + self.on_top


def m_steps(spec: RunSpec) -> int:
    """Trainings of the policy, the warm start among them."""
    return spec.rounds + (spec.improve.warm_start == "gold")


def policy_rank(spec: Spec) -> int:
    """Rank of the last policy of a run; 0 if it trains none.

    An adaptation is given its policy: the generator's first answer says whether it holds that.
    """
    if not isinstance(spec, RunSpec):
        return 0
    grown = m_steps(spec) if spec.improve.start == "policy" else min(m_steps(spec), 1)
    return grown * spec.improve.lora.rank


def asked_of_evaluator(spec: Spec) -> AskedLora:
    """The largest LoRA that answers questions; a policy of another base model answers none."""
    inner = AskedLora(0, spec.inner.lora.rank, "spec.inner.lora.rank")
    if not isinstance(spec, RunSpec):
        own = AskedLora(0, spec.adapter.lora.rank, "spec.adapter.lora.rank")
        return max(inner, own, key=lambda lora: lora.rank)
    if spec.cross_model:
        return inner
    policy = policy_rank(spec)
    if spec.inner.student == "policy":
        return AskedLora(policy, inner.on_top, inner.field)
    retained = AskedLora(policy if spec.data.retained else 0)
    return max(inner, retained, key=lambda lora: lora.rank)


async def check_ranks(spec: Spec, clients: ServiceClients) -> None:
    """Refuse a run whose policy, or what lies on it, outgrows what its services say they hold.

    Raises:
        InvalidInput: naming the field; or one of the services has another base model.
        SealError: what a service answered, after the retries.

    """
    if written := policy_rank(spec):
        held = await clients.generator.max_rank(policy_message(spec.writer, None))
        _check(spec, AskedLora(written), "generator", held)
    held = await clients.evaluator.max_rank(policy_message(spec.model, None))
    _check(spec, asked_of_evaluator(spec), "evaluator", held)


def _check(spec: Spec, asked: AskedLora, service: str, held: int) -> None:
    """`held`: largest rank that the service takes, 0 if it takes any."""
    if not 0 < held < asked.rank:
        return
    if asked.on_top > held:  # no policy beneath it would be small enough
        asked = replace(asked, policy=0)
    parts, instead = list[str](), list[str]()
    if asked.policy and isinstance(spec, RunSpec):
        own = spec.improve.lora.rank
        parts.append(f"the policy ends with rank {asked.policy}")
        if asked.policy > own:
            parts[-1] += f" ({m_steps(spec)} M-steps of {own})"
            instead += ["set spec.improve.start to base", "take fewer rounds"]
    if asked.on_top:
        parts.append(f"{asked.field} is {asked.on_top}")
    field = "spec.improve.lora.rank" if asked.policy else asked.field
    raise InvalidInput(
        f"{field}: the {service} holds LoRAs of up to rank {held}, it would be asked with one of "
        f"{asked.rank}: " + ", ".join(parts),
        field=field,
        remedy=", ".join([*instead, f"give a smaller {field}"])
        + f", or raise {engine_setting('max_rank', asked.rank)}",
    )
