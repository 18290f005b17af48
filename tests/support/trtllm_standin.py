"""A stand-in for TensorRT-LLM and its engine folders. `standins/README.md` lists the real parts."""

import json
import subprocess
import sys
from pathlib import Path

from dynemo.environments.find import site_packages

STANDINS = Path(__file__).parent / "standins"


def python_with_standin(folder: Path) -> str:
    """Makes an environment in `folder` with the stand-in and this environment's packages.

    Returns its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site, ours = site_packages(folder), site_packages(Path(sys.prefix))
    assert site is not None
    (site / "standins.pth").write_text(f"{STANDINS}\n{ours}\n")
    return str(folder / "bin" / "python")


def make_engine_folder(folder: Path, checkout: Path, stages: int = 1) -> Path:
    """Writes the files of `LLM(checkout).save(folder)` that our code reads."""
    config = json.loads((checkout / "config.json").read_text())
    pretrained = {
        "architecture": "LlamaForCausalLM",
        "vocab_size": config["vocab_size"],
        "eos_token_id": config["eos_token_id"],
        "mapping": {"world_size": stages, "tp_size": 1, "pp_size": stages},
    }
    build = {"max_seq_len": 3072, "max_batch_size": 4}
    (folder / "config.json").write_text(
        json.dumps({"version": "1.2.0", "pretrained_config": pretrained, "build_config": build})
    )
    for rank in range(stages):
        (folder / f"rank{rank}.engine").touch()
    return folder
