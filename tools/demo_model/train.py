"""Trains the demo model on generated chats, and writes the checkout."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from chats import Chat, drill, make_chat
from checkout import write_checkout
from encode import Encoder, train_tokenizer
from model import Llama, Shape
from torch import Tensor

BATCH_TOKENS = 4096
DRILL_STEPS = 300
WIDTHS = (48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048)

Maker = Callable[[Random], Chat]


@dataclass(frozen=True)
class Row:
    ids: list[int]
    positions: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class Batch:
    ids: Tensor
    positions: Tensor
    learned: Tensor


def spread(rng: Random, ids: list[int], turn_end: int, context: int) -> list[int]:
    """Returns the tokens' positions, for some chats with a jump after a turn.

    Most chats are short. The jump shows the model the distances of long ones.
    """
    positions = list(range(len(ids)))
    ends = [place for place, token in enumerate(ids[:-1]) if token == turn_end]
    if ends and rng.random() < 0.3:
        start = rng.choice(ends) + 1
        leap = rng.randint(1, max(1, context - len(ids)))
        return positions[:start] + [place + leap for place in positions[start:]]
    return positions


def pad(rows: list[Row], width: int, filler: int) -> Batch:
    ids = torch.full((len(rows), width), filler)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    learned = torch.zeros((len(rows), width), dtype=torch.bool)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = torch.tensor(row.ids)
        positions[place, :length] = torch.tensor(row.positions)
        learned[place, :length] = torch.tensor(row.learned)
    return Batch(ids, positions, learned)


def batches(encoder: Encoder, make: Maker, seed: int, context: int) -> Iterator[Batch]:
    """Yields endless batches of BATCH_TOKENS. The chats of a batch have similar lengths."""
    rng = Random(seed)
    waiting: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    while True:
        for ids, learned in encoder.encode([make(rng) for _ in range(64)]):
            kept = ids[: WIDTHS[-1]]
            width = next(width for width in WIDTHS if width >= len(kept))
            rows = waiting[width]
            rows.append(
                Row(kept, spread(rng, kept, encoder.turn_end, context), learned[: WIDTHS[-1]])
            )
            if len(rows) == BATCH_TOKENS // width:
                yield pad(rows, width, encoder.mark)
                waiting[width] = []


def optimizers(model: Llama, rate: float) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices, which it trains in fewer steps, and AdamW for the rest."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.97), weight_decay=0.0),
    ]


def share(step: int, steps: int) -> float:
    """Warms up over 40 steps, stays constant, and falls to zero over the last 60 %."""
    return min(1.0, (step + 1) / 40, (steps - step) / (0.6 * steps))


def train(model: Llama, encoder: Encoder, steps: int, seed: int, rate: float) -> None:
    chosen = optimizers(model, rate)
    started, seen, smooth = time.monotonic(), 0, None
    context = model.shape.context
    drills = batches(encoder, drill, seed, context)
    chats = batches(encoder, make_chat, seed, context)
    for step in range(steps):
        batch = next(drills if step < DRILL_STEPS else chats)
        for optimizer in chosen:
            for group in optimizer.param_groups:
                group["lr"] = rate * share(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(batch.ids, batch.positions, batch.learned)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
        seen += batch.ids.numel()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 25 == 0 or step == steps - 1:
            passed = time.monotonic() - started
            print(
                f"step {step:5} loss {smooth:.4f} {seen / passed:6.0f} tokens/s {passed:5.0f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the checkout")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    shape = Shape()
    tokenizer = train_tokenizer(shape.vocab, arguments.seed)
    model = Llama(shape)
    train(model, Encoder(tokenizer), arguments.steps, arguments.seed, arguments.rate)
    write_checkout(arguments.out, model, tokenizer)


if __name__ == "__main__":
    main()
