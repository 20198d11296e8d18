"""How a remedy names a setting of the engine, so that both kinds of reader can follow it.

Who runs `seal` on a laptop writes `--engine maxRowTokens=4096`, who runs a service
`--max-row-tokens 4096`; an error of the engine is read by both.
"""

from __future__ import annotations

from pydantic.alias_generators import to_camel

from seal.settings import EngineSettings


def engine_setting(name: str, value: object = None) -> str:
    """A field of `EngineSettings` as people write it, with the value that it should have if known.

    Reads on from a verb: "raise maxRank of the engine (--engine maxRank=..., a service:
    --max-rank)". Raises ValueError for a field that is not there.
    """
    if name not in EngineSettings.model_fields:
        raise ValueError(f"the engine has no setting {name!r}")
    written, flag = to_camel(name), "--" + name.replace("_", "-")
    if value is None:
        return f"{written} of the engine (--engine {written}=..., a service: {flag})"
    return (
        f"{written} of the engine to {value} (--engine {written}={value}, a service: "
        f"{flag} {value})"
    )
