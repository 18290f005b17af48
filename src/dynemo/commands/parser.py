"""argparse, with its mistakes said as ours are: one sentence, raised and not printed."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dynemo.errors import UsageError


class Parser(argparse.ArgumentParser):
    #: What completion offers in the place of a word that may also be another.
    offers: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")
