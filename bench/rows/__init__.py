"""The measurements, one family per file. `FAMILIES` lists the values of `--only`."""

from collections.abc import Callable

from bench.plan import Plan
from bench.rows.cost import cpu_rows
from bench.rows.dyn import dyn_rows
from bench.rows.first import start_rows
from bench.rows.llama_cpp import llama_cpp_rows
from bench.rows.memory import memory_rows
from bench.rows.mistralrs import mistralrs_rows
from bench.rows.neighbours import neighbour_rows
from bench.rows.overload import overload_rows
from bench.rows.prefix import prefix_rows
from bench.rows.registry import registry_rows
from bench.rows.saturation import saturation_rows
from bench.rows.sglang import sglang_rows
from bench.rows.vllm import vllm_rows
from bench.table import Row

FAMILIES: dict[str, Callable[[Plan], list[Row]]] = {
    "llama_cpp": llama_cpp_rows,
    "start": start_rows,
    "memory": memory_rows,
    "cpu": cpu_rows,
    "dyn": dyn_rows,
    "saturation": saturation_rows,
    "neighbours": neighbour_rows,
    "overload": overload_rows,
    "registry": registry_rows,
    "prefix": prefix_rows,
    "mistralrs": mistralrs_rows,
    "vllm": vllm_rows,
    "sglang": sglang_rows,
}
