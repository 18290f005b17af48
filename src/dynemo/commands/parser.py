"""argparse, with its mistakes said as ours are: one sentence, raised and not printed."""

import argparse
from typing import NoReturn

from dynemo.errors import UsageError


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")
