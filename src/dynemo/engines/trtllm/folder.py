"""An engine folder that TensorRT-LLM has built for a number of devices."""

import os
from pathlib import Path
from typing import Any

from dynemo.errors import UsageError
from dynemo.foreign import decode_json
from dynemo.messages.spec import EngineSpec


def is_engine(model: str) -> bool:
    return os.path.exists(os.path.join(model, "rank0.engine"))


def check_ranks(spec: EngineSpec) -> None:
    """Raises UsageError if --tensor-parallel-size does not fit the engine's devices.

    Pipeline stages divide the devices.
    """
    ranks = len(list(Path(spec.model).glob("rank*.engine")))
    tensor = ranks // _stages(Path(spec.model) / "config.json")
    if tensor != spec.parallel.tensor:
        raise UsageError(
            f'"{spec.model}" was built for {ranks} devices. Use --tensor-parallel-size {tensor}.'
        )


def _stages(config: Path) -> int:
    built: dict[str, Any] = decode_json(config.read_bytes(), dict[str, Any])
    mapping = built.get("pretrained_config", {}).get("mapping", {})
    stages: int = mapping.get("pp_size", 1)
    return max(1, stages)
